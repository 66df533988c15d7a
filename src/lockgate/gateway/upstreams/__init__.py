"""Which of a provider's upstreams takes a call: breakers, balancing, bounded queues."""
