"""The store on disk: what agents said of samples, found again by who said it, and of what. See docs/store.md."""

from kdmesh.store.entry import Entry, Found
from kdmesh.store.fingerprint import Fingerprint
from kdmesh.store.key import EntryKey
from kdmesh.store.store import LIMIT_BYTES, EntryInfo, Store, default_limit, default_root

__all__ = [
    "LIMIT_BYTES",
    "Entry",
    "EntryInfo",
    "EntryKey",
    "Fingerprint",
    "Found",
    "Store",
    "default_limit",
    "default_root",
]
