"""Which configuration next; Optuna is known here and nowhere else."""
