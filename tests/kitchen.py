"""The plugins of the cookbook as a user has them: in a folder of plugins, with what their meshes read."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COOKBOOK = ROOT / "examples" / "cookbook"


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory):
    """A copy of the cookbook, with the database that one of its meshes reads."""
    folder = tmp_path_factory.mktemp("kitchen") / "cookbook"
    shutil.copytree(COOKBOOK, folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite"))
    path, before = str(folder), os.environ.get("PYTHONPATH")
    sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, before)))  # of interpreters that contracts start
    import_module("sqlite_table").write(folder / "wine.sqlite")
    yield folder
    sys.path.remove(path)
    os.environ.update({"PYTHONPATH": before} if before else {})


@pytest.fixture
def cookbook(kitchen, monkeypatch):
    """Have the cookbook's plugins among those of this process; ``cookbook(name)``: the module of one."""
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(kitchen))
    return import_module
