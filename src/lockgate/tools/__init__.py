"""Tools: contracts, policy, approvals."""
