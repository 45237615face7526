"""What crosses an edge."""

from kdmesh.contracts.signal import Signal

__all__ = ["Signal"]
