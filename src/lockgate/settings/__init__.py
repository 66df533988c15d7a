"""Operational settings: what may change while everything runs, without a new digest."""
