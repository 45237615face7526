"""Runs of kdmesh in MLflow."""
