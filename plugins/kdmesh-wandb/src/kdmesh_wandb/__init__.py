"""Runs of kdmesh in Weights & Biases."""
