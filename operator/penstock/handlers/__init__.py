"""Kopf in, nothing out: the kinds that people write feed the state; whatever is written, our own writers write."""
