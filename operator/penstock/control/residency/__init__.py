"""The law as it stands, for each namespace and pool, and who is outside it."""
