"""Choosing a small training set by what teachers say: ``kdmesh select``. See docs/data.md."""
