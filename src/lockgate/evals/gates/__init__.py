"""Gates beside quality: cost, latency, safety."""
