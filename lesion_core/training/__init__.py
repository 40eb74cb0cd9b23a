"""How a network is trained: one step, one epoch, its precision and its memory."""
