"""Who runs which version: agents that report by heartbeat, and this machine's own hosts."""
