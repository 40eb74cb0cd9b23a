"""One trial: an attempt at it, where the next one comes from, how far they all are."""
