"""Staged rollouts: assignment, shadow pairs, evidence, decisions, and the controller that acts on them."""
