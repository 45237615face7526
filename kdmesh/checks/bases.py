"""What weights begin with, in this run and in earlier ones, and which agents begin with the same as their teachers."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kdmesh.checks.licence_sources import FIELD
from kdmesh.checks.shared_base import Shared
from kdmesh.files import CONFIG, OURS, read_json, sha256
from kdmesh.graph.heard import heard, origin, reached
from kdmesh.hosts.modules import seed_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.plan import Plan

WEIGHTS = ("*.safetensors", "*.onnx", "*.gguf")


class Base(NamedTuple):
    """What weights begin with: drawn by a ``key``, given with a sum, or read from files."""

    kind: str
    key: str

    @property
    def told(self) -> str:
        """In a few words, without a path."""
        if self.kind == "files":
            return Path(self.key).name
        return {"drawn": "the same draw", "given": "the same weights from Python"}[self.kind]

    @property
    def identity(self) -> str:
        """A name that it has in every run."""
        if self.kind != "files":
            return f"{self.kind}:{hashlib.sha256(self.key.encode()).hexdigest()}"
        path = Path(self.key)
        if not path.exists():
            return f"hub:{self.key}"
        files = [path] if path.is_file() else sorted(one for kind in WEIGHTS for one in path.glob(kind))
        sums = [_sum(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
        return f"files:{sums[0] if len(sums) == 1 else hashlib.sha256(''.join(sums).encode()).hexdigest()}"


@lru_cache(maxsize=256)
def _sum(path: str, size: int, changed: int) -> str:
    return sha256(Path(path))


def base_of(plan: Plan, agent: str, given: Mapping[str, str]) -> Base:
    """What an agent begins with. ``given``: the sums of modules from Python."""
    first = origin(plan, plan.owner[agent])
    spec = plan.spec.agents[first]
    path = None if spec.model is None else spec.model.config.get("path")
    if spec.weights is not None or isinstance(path, str):
        place = Path(spec.weights or str(path)).expanduser()
        return Base("files", str(place.resolve()) if place.exists() else str(place))
    if first in given:
        return Base("given", given[first])
    model = None if spec.model is None else spec.model.model_dump(mode="json")
    return Base("drawn", json.dumps([seed_of(plan, first), model], sort_keys=True))


def before(base: Base) -> list[str]:
    """What kdmesh recorded of weights in a folder: the bases of those that they were trained from."""
    if base.kind != "files":
        return []
    path = Path(base.key)
    folder = path if path.is_dir() else path.parent
    for name in (OURS, CONFIG):
        config = read_json(folder / name)
        found = (config or {}).get(FIELD)
        if isinstance(found, dict) and isinstance(found.get("bases"), list):
            return [str(one) for one in found["bases"]]
    return []


def bases(plan: Plan, agent: str, given: Mapping[str, str]) -> list[str]:
    """The identities of all that an agent's weights began with, in this run and in earlier ones."""
    base = base_of(plan, agent, given)
    return list(dict.fromkeys([base.identity, *before(base)]))


def shared(plan: Plan, given: Mapping[str, str]) -> dict[str, list[Shared]]:
    """By agent that learns, those of its teachers that began with the same weights.

    Averages of an agent are left out: they are its own past.
    """
    by, specs = heard(plan), plan.spec.agents
    own = {name: base_of(plan, name, given) for name in plan.owner}
    earlier = {name: before(base) for name, base in own.items()}
    found: dict[str, list[Shared]] = {}
    for name, owner in plan.owner.items():
        if owner not in plan.trainable:
            continue
        for other in reached(name, by):
            if other not in plan.owner or plan.owner[other] == owner or specs[plan.owner[other]].ema is not None:
                continue
            if own[name] == own[other]:
                found.setdefault(name, []).append(Shared(other, own[name].told))
            elif earlier[name] or earlier[other]:
                mine, theirs = ([own[one].identity, *earlier[one]] for one in (name, other))
                if {*mine} & {*theirs}:
                    found.setdefault(name, []).append(Shared(other, "the same weights, in an earlier run"))
    return found
