"""What models are found by in a store, noted by the files they are read from: none needs to be read to be known."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from kdmesh.files import read_json, write_json

if TYPE_CHECKING:
    from kdmesh.store.root import Root

MODELS = "models"  # a folder beside those of entries
SUM = "sum"


def recall(root: Root, sign: str) -> dict[str, str] | None:
    """What was noted of a model; None where nothing was, or what is there is not as it was written."""
    try:
        found = read_json(root.entries / MODELS / f"{sign}.json")
    except (OSError, ValueError):
        return None
    if found is None or found.pop(SUM, None) != _sum(sign, found):
        return None
    return {name: str(value) for name, value in found.items()}


def remember(root: Root, sign: str, told: dict[str, str]) -> None:
    """Note it; where nothing can be written, nobody misses it."""
    path = root.entries / MODELS / f"{sign}.json"
    if root.fault or recall(root, sign) == told:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**told, SUM: _sum(sign, told)})
    except OSError:
        return


def _sum(sign: str, told: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([sign, told], sort_keys=True).encode()).hexdigest()
