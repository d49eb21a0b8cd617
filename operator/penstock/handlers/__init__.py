"""Kopf in, Kopf out: each handler hands one object to the cluster's state and wakes the control loop."""
