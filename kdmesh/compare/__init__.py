"""Comparing meshes: contenders, paired trials made side by side, and what they show."""
