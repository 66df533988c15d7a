"""One file a migration; ``control_*`` and ``traces_*`` are separate histories."""
