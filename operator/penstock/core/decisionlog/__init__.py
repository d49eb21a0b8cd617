"""The decision log: what a line says, how lines are chained, and what they prove when they are read back."""
