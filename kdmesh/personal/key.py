"""The key of pseudonyms and logs: a file that the environment names, so that it is in no mesh and no run."""

from __future__ import annotations

import os
from pathlib import Path

from kdmesh.errors import MeshError
from kdmesh.privacy import keys
from kdmesh.privacy.keys import Secret

VARIABLE = "KDMESH_PERSONAL_KEY"


def place() -> Path | None:
    """The file that the environment names."""
    given = os.environ.get(VARIABLE)
    return Path(given).absolute() if given else None


def key() -> Secret | None:
    """The key of this environment; None where it names none. MeshError for a file that is none, or that others read."""
    if (path := place()) is None:
        return None
    try:
        return keys.load(path)
    except MeshError as error:
        error.where = VARIABLE
        raise


def needed(why: str = "pseudonyms are made with a key", where: str = "data.personal.action") -> Path:
    """The key's file, which is one; MeshError, at ``where``, where the environment names none."""
    if key() is None:
        instead = f"kdmesh personal key FILE, then {VARIABLE}=FILE"
        raise MeshError(f"{why}, and the environment names none", where=where, instead=instead)
    found = place()
    assert found is not None
    return found
