"""Watts: what a node draws and reserves, what domains promise and may draw, and what gives way beyond it."""
