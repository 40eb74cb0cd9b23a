"""What Weights & Biases hears; wandb is known here and nowhere else."""
