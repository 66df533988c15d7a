"""Secret stores, one a module: ``read(name, root) -> value``, or Unavailable with a remedy and never the value."""
