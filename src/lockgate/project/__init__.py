"""The project file, environments, secret references, and scaffolds."""
