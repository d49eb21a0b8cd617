"""The node's own agent: NVML read in its own thread, published as `GPUNode` status. No kopf, no kubernetes."""
