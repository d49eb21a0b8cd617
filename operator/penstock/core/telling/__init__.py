"""What people read: why, why not, what would help, and the conditions."""
