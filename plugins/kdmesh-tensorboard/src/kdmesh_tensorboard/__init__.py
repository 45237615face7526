"""Scalars of a run for TensorBoard."""
