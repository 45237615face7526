"""Signals that are not live: published, recorded, versioned."""

from kdmesh.store.store import Key, Publication, Store

__all__ = ["Key", "Publication", "Store"]
