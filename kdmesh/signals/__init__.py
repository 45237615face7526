"""What crosses an edge."""

from kdmesh.signals.signal import Signal

__all__ = ["Signal"]
