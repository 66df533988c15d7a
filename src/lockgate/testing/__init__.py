"""Public fakes and the pytest plugin."""
