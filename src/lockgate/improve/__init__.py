"""Failures become candidates, candidates become cases."""
