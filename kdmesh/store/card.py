"""``entry.json``: what an entry is, in words that a person can read, with a sum over all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import opened, to_json
from kdmesh.store.key import EntryKey, canonical

if TYPE_CHECKING:
    from pathlib import Path

CARD = "entry.json"
FORMAT = 1
MOST = 2**22  # bytes of a card that are read


class Damaged(Exception):
    """A card that is not what was written; the message says how."""


class LaterCard(Damaged):
    """A card of a later version's format."""


def card(key: EntryKey, info: Mapping[str, Any]) -> str:
    """The text of a card. ``info``: what is good to know and not part of the key, as who asked first."""
    told = {"format": FORMAT, "key": json.loads(key.canonical), "info": dict(info)}
    return to_json({**told, "sha256": sha256(canonical(told)).hexdigest()}, 2) + "\n"


def read_card(folder: Path) -> tuple[EntryKey, dict[str, Any]]:
    """The key and the info of an entry's folder. Damaged where they are not as written, OSError without a card."""
    with opened(folder / CARD) as file:
        return parsed(file.read(MOST), folder.name)


def parsed(content: bytes, digest: str) -> tuple[EntryKey, dict[str, Any]]:
    """The key and the info of a card of the entry ``digest``. Damaged where they are not as written."""
    try:
        text = content.decode()
        told = json.loads(text)
        if told["format"] > FORMAT:
            raise LaterCard(f"a newer version of kdmesh wrote it (format {told['format']})")
        key = EntryKey(told["key"]["producer"], told["key"]["signal"])
        if card(key, told["info"]) != text:
            raise Damaged(f"{CARD} is not what was written")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, MeshError):
        raise Damaged(f"{CARD} is not what was written") from None
    if key.digest != digest:
        raise Damaged(f"{CARD} is that of another entry")
    return key, told["info"]
