"""Agent files to digests: bundles, the lock file, diffs, attestations."""
