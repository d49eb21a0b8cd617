"""What we decide: frozen values in and out. No await, clock, random, log or client."""
