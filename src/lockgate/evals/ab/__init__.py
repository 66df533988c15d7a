"""A/B: which of two versions, or of two prompts, a judge prefers on the same cases."""
