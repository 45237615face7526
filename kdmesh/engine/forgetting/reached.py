"""Every place that samples of a run reached: in its folder, in the store, and in other runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import INTENT, MANIFEST
from kdmesh.engine.forgetting.learned import SAYS, Run, Weights, learners, others
from kdmesh.engine.forgetting.places import Place, quoted, within
from kdmesh.files import read_json
from kdmesh.report.run_folder import read
from kdmesh.store.forgetting import Held, Samples, held

if TYPE_CHECKING:
    from kdmesh.engine.forgetting.asked import Asked
    from kdmesh.spec import MeshSpec
    from kdmesh.store import Store


@dataclass
class Reached:
    """All places of some samples.

    ``places``: in the run's folder; ``entries``: of the store; ``weights``: folders that learned them; ``exported``:
    files made of these; ``runs``: others that have the samples, or what learned them; ``notes``: what nobody can look
    through, in words.
    """

    asked: Asked
    samples: Samples
    places: list[Place] = field(default_factory=list)
    entries: list[Held] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    exported: list[Path] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self, root: Path) -> dict[str, Any]:
        """As plain data, without anything that a sample says."""
        return {
            "samples": len(self.asked.rows),
            "streams": list(self.asked.streams),
            "places": [
                {"path": one.path, "what": one.what, "removable": one.change is not None} for one in self.places
            ],
            "store": [
                {"entry": one.digest, "agent": one.agent, "rows": one.rows, "whole": one.whole} for one in self.entries
            ],
            "retrain": [{"path": _below(one.path, root), "how": one.how, "why": SAYS[one.how]} for one in self.weights],
            "exported": [_below(one, root) for one in self.exported],
            "runs": [{"path": str(one.path), "agents": list(one.agents), "why": one.began} for one in self.runs],
            "notes": self.notes,
        }


def reached(root: Path, spec: MeshSpec, asked: Asked, store: Store | None, parent: Path) -> Reached:
    """Look through a run's folder, a store, and the runs in ``parent``; nothing is changed."""
    samples = Samples(asked.digests, spec.name, frozenset(spec.agents), asked.numbers)
    found = Reached(asked, samples)
    parts = parts_of(root)
    for part in parts:
        found.places += within(part, root, asked)
        found.weights += learners(part, asked.keys, bool(asked.streams))
    for one in found.weights:
        found.exported += _exported(one.path)
        found.places += _vocabularies(one.path, root, asked)
    if store is not None and store.exists and store.place == str(store.path) and asked.numbers:
        found.entries = list(held(store.root, samples))
    found.runs = others(root, parent, asked.keys)
    found.notes = _notes(root, spec, asked, store)
    return found


def parts_of(root: Path) -> list[Path]:
    """The folders of a run that have files of their own: the whole first, then its seeds and controls."""
    return list(dict.fromkeys([root, *(part.path for _, part in read(root).parts)]))


def _exported(folder: Path) -> list[Path]:
    """What was made of an agent since, in folders within its own."""
    return sorted(one for one in folder.iterdir() if one.is_dir() and any(one.glob("export.json")))


def _vocabularies(folder: Path, root: Path, asked: Asked) -> list[Place]:
    what = "has words of a sample, as a vocabulary that learned from it: retrain the agent"
    files = [one for one in sorted(folder.glob("*")) if one.is_file() and one.suffix in (".json", ".txt", ".md")]
    return [Place(_below(one, root), what) for one in files if quoted(one, asked.words)]


def _notes(root: Path, spec: MeshSpec, asked: Asked, store: Store | None) -> list[str]:
    found = []
    if asked.streams:
        found.append(f"the samples are in {', '.join(asked.streams)}; their source itself is yours, and stays as it is")
        found.append("figures that they are part of (metrics, losses) stay")
    if asked.twins:
        found.append(f"{asked.twins:,} other samples have the same values, and whose a place is cannot be told")
    if store is None:
        found.append("no store was looked through")
    elif store.place != str(store.path):
        found.append(f"{store.place} is at a URL, where nothing is looked through or deleted from here")
    found += [f"in the store rows are found by number alone, since nobody can say {one}" for one in asked.unknown]
    begun = (read_json(root / MANIFEST) or {}).get("begun") or {}
    if isinstance(begun, dict) and begun.get("collect"):
        found.append(f"the run was also collected at {begun['collect']}, which is not reached from here")
    if any(one.model is not None and one.model.name == "api" for one in spec.agents.values()):
        found.append("what was sent to endpoints is known to whoever runs them")
    if (root / INTENT).exists():
        found.append("a removal was begun here and is not finished: --remove goes on with it")
    return found


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
