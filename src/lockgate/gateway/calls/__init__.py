"""The life of one model call: admitted, guarded, looked up, tried, settled, recorded."""
