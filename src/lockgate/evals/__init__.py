"""Golden sets, scorers, statistics, and the gate."""
