"""The demo: a fleet on a real control plane, a story played on it, and what was measured while it played."""
