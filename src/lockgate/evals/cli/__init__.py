"""``lockgate eval``, ``compare`` and ``report``, a file each, and what they share."""
