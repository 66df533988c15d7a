"""Checks of a project and of the machine it is on: one small function a check, each finding with its remedy."""
