"""Budgets and holds, rate limits, prices."""
