"""One file a model; ``catalogue`` is their table."""
