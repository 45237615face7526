"""A run's folder: what was asked, what was planned, what happened, and what came out."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.agents.saving import write
from kdmesh.errors import MeshError
from kdmesh.spec.yaml12 import dump

if TYPE_CHECKING:
    from kdmesh.engine.check import Checked
    from kdmesh.engine.run import Run
    from kdmesh.graph.plan import Plan

PACKAGES = ("kdmesh", "torch", "ray", "networkx", "pydantic", "numpy", "scikit-learn", "safetensors")


class Folder:
    """``runs/<name>/<time>/``. Everything in it is text, JSON or safetensors."""

    def __init__(self, out: Path, name: str) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.root = out / name / stamp
        try:
            number = 2
            while self.root.exists():
                self.root, number = out / name / f"{stamp}-{number}", number + 1
            self.root.mkdir(parents=True)
        except OSError as error:
            raise MeshError(
                f"cannot write the run's folder: {error}", where="--out", instead="a folder that is writable"
            ) from None

    @classmethod
    def at(cls, root: Path) -> Folder:
        """The folder of a run that was begun."""
        folder = cls.__new__(cls)
        folder.root = root
        return folder

    @property
    def events(self) -> Path:
        """The log of events."""
        return self.root / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints' folder."""
        return self.root / "checkpoints"

    def asked(self, plan: Plan, checked: Checked, source: str | None, begun: dict[str, Any]) -> None:
        """Write the file as given, the long form with every default, and the manifest with how it was ``begun``."""
        if source is not None:
            (self.root / "mesh.yaml").write_text(source, encoding="utf-8")
        resolved = plan.resolved().model_dump(mode="json", by_alias=True, exclude_none=True)
        (self.root / "resolved.yaml").write_text(dump(resolved), encoding="utf-8")
        self.json("manifest.json", {**manifest(plan, checked), "begun": begun})

    def json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file."""
        (self.root / name).write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")

    def agents(self, run: Run, summary: dict[str, Any]) -> None:
        """Have every host write its agents' folders, or hand them over where it does not see this one."""
        assert run.checkpoints is not None
        home, place, agents = self.root.resolve() / "agents", run.checkpoints.place, summary["agents"]
        agents = {name: facts for name, facts in agents.items() if name in run.host_of}
        saved = [
            run.call(name, "save_agent", name, place(run.host_of[name], home / name), facts)
            for name, facts in agents.items()
        ]
        for name, files in zip(agents, run.backend.get(saved), strict=True):
            write(home / name, files)


def manifest(plan: Plan, checked: Checked) -> dict[str, Any]:
    """Versions, seed, hashes and licences: what is needed to trust or repeat the run."""
    import hashlib

    import torch

    def digest(tensor: Any) -> str:
        return hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    table = checked.table
    return {
        "seed": plan.spec.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "data": {
            "source": table.source,
            "licence": table.licence,
            "samples": len(table),
            "x_sha256": digest(table.x),
            "y_sha256": digest(table.y) if table.y is not None else None,
            "streams": {name: len(stream.rows) for name, stream in checked.streams.items()},
        },
        "teachers": {
            name: {"file": agent.weights, "sha256": hashlib.sha256(Path(agent.weights).read_bytes()).hexdigest()}
            for name, agent in plan.spec.agents.items()
            if agent.weights
        },
        "mesh": plan.resolved().model_dump(mode="json", by_alias=True, exclude_none=True),
    }
