"""The cluster kit: real etcd, Kubernetes, kwok and helm on one machine, without a container engine."""
