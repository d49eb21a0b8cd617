"""The capper: sets the power limits that the operator asks of this node's GPUs, and reads back what became of them."""
