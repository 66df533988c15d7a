"""Spans: written, stored, shown."""
