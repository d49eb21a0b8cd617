"""The digital twin: fleets, power curves and load. It drives core, never the reverse."""
