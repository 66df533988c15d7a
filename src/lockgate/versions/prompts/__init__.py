"""Prompts: what they are for, who uses them, and how each of their texts did."""
