"""What a run's folder says of it in W&B: ``wandb.json``. It imports nothing but Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

NAME = "wandb.json"


def write(folder: Path, identity: str, project: str) -> None:
    """Keep which run of W&B a folder is."""
    (folder / NAME).write_text(json.dumps({"id": identity, "project": project}), encoding="utf-8")


def read(folder: Path) -> dict[str, str] | None:
    """``id`` and ``project`` of a folder; None where it says nothing, or what is no such thing."""
    try:
        about = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = about.get("id") if isinstance(about, dict) else None
    if not isinstance(known, str) or not re.fullmatch(r"[0-9a-f]{12}", known):
        return None
    return {"id": known, "project": str(about.get("project"))[:200]}
