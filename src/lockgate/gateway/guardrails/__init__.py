"""Checks of what goes into a model and what comes out: detectors, policies, and their work on streams."""
