"""What a run's folder says of it in MLflow: ``mlflow.json``. It imports nothing but Python."""

from __future__ import annotations

import json
import re
from pathlib import Path

NAME = "mlflow.json"


def write(folder: Path, run_id: str, experiment: str) -> None:
    """Keep which run of MLflow a folder is."""
    (folder / NAME).write_text(json.dumps({"run_id": run_id, "experiment": experiment}), encoding="utf-8")


def read(folder: Path) -> dict[str, str] | None:
    """``run_id`` and ``experiment`` of a folder; None where it says nothing, or what is no such thing."""
    try:
        about = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = about.get("run_id") if isinstance(about, dict) else None
    if not isinstance(known, str) or not re.fullmatch(r"[0-9a-zA-Z][\w-]{0,255}", known):
        return None
    return {"run_id": known, "experiment": str(about.get("experiment"))[:200]}
