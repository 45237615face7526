"""Reinforcement learning on what language models write: objectives for kdmesh."""
