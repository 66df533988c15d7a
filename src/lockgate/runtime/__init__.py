"""Running one agent version, step by step, resumable and replayable."""
