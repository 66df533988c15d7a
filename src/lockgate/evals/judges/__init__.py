"""Judges held against people: calibration, and scores corrected by labels."""
