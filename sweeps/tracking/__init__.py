"""What Weights & Biases gets of a sweep; the only part that imports wandb."""
