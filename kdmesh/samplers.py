"""What to write a sampler with, for `kdmesh sweep`; imports no torch."""

from __future__ import annotations

from kdmesh.contracts.sampler import Axis, Choices, Point, Range, Sampler

__all__ = ["Axis", "Choices", "Point", "Range", "Sampler"]
