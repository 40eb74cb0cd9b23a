"""Trials on machines; Ray is known here and nowhere else."""
