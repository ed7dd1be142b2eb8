"""Per-row solves of one row block: compiled for CPU."""
