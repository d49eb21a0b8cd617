"""Decisions into the log: each before or as it is carried out, and the cluster's checkpoints of them."""
