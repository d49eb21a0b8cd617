"""Penstock decides where model replicas run: inside the law, inside the power, where a joule buys most tokens."""

__version__ = "0.1.0"
