"""What a model or data card states: the front matter of a README.md, as the hub writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from kdmesh.files import read

if TYPE_CHECKING:
    from pathlib import Path

CARD = "README.md"
MOST = 2**20
FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---", re.DOTALL)
ELSEWHERE = {"other", "unknown"}
"""What the hub has in `license` where the name stands in `license_name`."""


class Card(NamedTuple):
    """``licence``: as it is written, "" where none is stated; ``base``: the models that it was made from."""

    licence: str
    base: tuple[str, ...] = ()


def front_matter(text: str) -> dict[str, Any]:
    """The fields at the head of a card; none where it has no such head, or one that is no YAML mapping."""
    head = FRONT.match(text.removeprefix("\ufeff"))
    try:
        found = yaml.safe_load(head.group(1)) if head else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}


def card_of(folder: Path) -> Card | None:
    """What the card in a folder states; None where there is no card, or none that has a head."""
    try:
        fields = front_matter(read(folder / CARD, most=MOST))
    except (OSError, UnicodeDecodeError):
        return None
    if not fields:
        return None
    stated = _words(fields.get("license", fields.get("licence")))
    if stated.casefold() in ELSEWHERE and (name := _words(fields.get("license_name"))):
        stated = name
    base = fields.get("base_model")
    return Card(stated, tuple(map(str, base if isinstance(base, list) else [base] if base else [])))


def _words(value: Any) -> str:
    """A licence as one text; of a list, as data cards have, all of them hold."""
    if isinstance(value, list):
        return " AND ".join(str(one) for one in value if isinstance(one, str | int | float))
    return str(value).strip() if isinstance(value, str | int | float) else ""
