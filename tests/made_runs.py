"""Folders of real runs, made once, as fixtures; tests that change one do it in a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.contracts.run_files import LOG, RESULTS, SHEET, SUMS
from kdmesh.engine.lock import held


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs`` with ``small`` (one seed) and ``several`` (two seeds with controls), on made-up points."""
    x = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
    split = [(x[rows], x[rows].argmax(1) % 3) for rows in torch.arange(96).split([48, 24, 24])]
    runs = tmp_path_factory.mktemp("made") / "runs"
    for name, seeds in (("small", 1), ("several", 2)):
        mesh = kdmesh.Mesh(
            name=name, data=kdmesh.data(*split, classes=3), train={"steps": 2, "batch_size": 16, "optimizer": "sgd"}
        )
        for agent in ("t1", "t2", "s"):
            mesh.agent(agent, {"mlp": {"hidden": [4]}})
        mesh.connect("ensemble", teachers=["t1", "t2"], student="s")
        mesh.run(backend="inline", out=runs, seeds=seeds, controls=seeds > 1)
    return runs


class Runs:
    """A copy of some runs, and ways to leave one as it may be found."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __getitem__(self, name: str) -> Path:
        (folder,) = (self.root / name).iterdir()
        return folder

    def unfinished(self, folder: Path, *last: dict[str, Any], cut: str = "") -> Path:
        """Take a folder back to before its end: without results, its newest log without its last event."""
        for name in (RESULTS, SHEET, SUMS, "summary.json"):
            (folder / name).unlink(missing_ok=True)
        log = folder / LOG
        lines = log.read_text().splitlines()[:-1] + [json.dumps(event) for event in last]
        log.write_text("".join(f"{line}\n" for line in lines) + cut)
        return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Runs:
    """A copy of the runs that were made."""
    return Runs(Path(shutil.copytree(made, tmp_path / "runs")))


@pytest.fixture
def at_work() -> Callable[[Path], Any]:
    """Hold a run's folder as the process at work on it does: ``with at_work(folder):``."""
    return held
