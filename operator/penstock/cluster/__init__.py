"""How we touch the world: the API server's objects in, our writes out. No decisions."""
