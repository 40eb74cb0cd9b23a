"""Numbers in, numbers out: no figure, no page, no file."""
