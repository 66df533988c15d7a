"""Answers that are given again: what makes two requests the same, where answers are kept, and for how long."""
