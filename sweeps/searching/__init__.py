"""A search over a loss's numbers; the only part that imports Optuna."""
