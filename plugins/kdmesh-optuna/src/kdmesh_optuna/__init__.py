"""A sampler for sweeps of kdmesh, by Optuna."""
