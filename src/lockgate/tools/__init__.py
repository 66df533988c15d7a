"""Tool contracts, policy, approvals."""
