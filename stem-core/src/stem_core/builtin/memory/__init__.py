"""The memory adapters: the contract as the plainest code that keeps it, in one process."""
