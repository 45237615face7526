"""Distillation on outputs: objectives and consensus rules for kdmesh."""
