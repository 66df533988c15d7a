"""The data plane: identity, routing, proxying, the supervisor."""
