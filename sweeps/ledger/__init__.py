"""The results folder: the only truth about what is done, and who may write it."""
