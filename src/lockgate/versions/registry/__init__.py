"""Versions in OCI registries: names, credentials, the wire, push and pull."""
