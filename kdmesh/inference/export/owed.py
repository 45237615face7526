"""What is owed by whoever gives an exported agent to others: its name is checked, all of it goes beside the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import CONFIG, OURS, read_json, write
from kdmesh.licences.clauses import GIVEN
from kdmesh.provenance.card import section

if TYPE_CHECKING:
    from pathlib import Path

NAME = "LICENCES.md"


def origin(root: Path) -> dict[str, Any]:
    """What an agent's folder says of what it learned from; nothing where it says none."""
    found = (read_json(root / OURS) or read_json(root / CONFIG) or {}).get("licences")
    return found if isinstance(found, dict) and isinstance(found.get("judged"), dict) else {}


def wrong_name(record: dict[str, Any], name: str) -> str:
    """Why an agent may not be given away by a name, by the clauses that were read; "" where none asks for another.

    MeshError where its mesh was `strict` about licences.
    """
    begins = str(record.get("judged", {}).get("begins", ""))
    if not begins or name.casefold().startswith(begins.casefold()):
        return ""
    judged = record["judged"]
    what = f"its name is {name!r}, and a licence of what it learned from asks for one that begins with {begins!r}"
    if record.get("policy") == "strict" and judged.get("purpose") in GIVEN:
        raise MeshError(what, where="--name", instead=f"--name {begins}-{name}")
    return what


def keep(record: dict[str, Any], name: str, folder: Path) -> None:
    """Write all that is owed into an export's folder."""
    if record:
        write(folder / NAME, f"# {name}\n{section(record)}")
