"""Where weights come from: loaded ones must not have learned what is measured here, and every agent's folder tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kdmesh.agents.build import origin
from kdmesh.errors import MeshError
from kdmesh.files import CONFIG, OURS, WEIGHTS
from kdmesh.spec import DataSpec
from kdmesh.streams.learned import ATTRIBUTE, LEARNED, Record, changes, in_header, overlap, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from kdmesh.engine.checked import Checked
    from kdmesh.graph.plan import Plan

Learned = list[Record | None]
"""The records of some weights; None stands for something that is not known."""


def trace(plan: Plan, found: Checked, modules: Mapping[str, nn.Module]) -> None:
    """Fill in ``found.learned``; refuse weights that may have learned a held-out sample, and mark what is not known."""
    data = plan.spec.data or DataSpec.model_validate("python:given")
    own = record(found.table, data)
    loaded: dict[str, Learned] = {}
    unknown: dict[str, None] = {}
    for owner in dict.fromkeys(plan.owner.values()):
        where, loaded[owner] = _loaded(plan, owner, modules)
        for one in loaded[owner]:
            try:
                leak = None if one is None else overlap(one, found.table, found.streams)
            except ValueError:
                one, leak = None, None
            if one is None:
                unknown[owner] = None
            if one is not None and leak is not None:
                before = changes(one, found.table, data)
                raise MeshError(
                    f"these weights were trained on the same data, split in another way (data seed "
                    f"{one['splits'].get('seed')}; here {data.seed}): {leak[1]} of the {leak[2]} {leak[0]} samples may "
                    f"have taught them",
                    where=where,
                    instead=f"{before}, as when they were trained; or train them on this split",
                )
    found.learned = _everything(plan, loaded, own)
    old = [name for name in unknown if _silent(plan, name)]
    if unknown and (data.seed or old):
        names = ", ".join(unknown if data.seed else old)
        found.mark(
            f"data.seed is {data.seed}, and what the weights of {names} were trained on is not known: if it was this "
            "data under another seed, they have seen samples that are tested here"
        )


def _loaded(plan: Plan, owner: str, modules: Mapping[str, nn.Module]) -> tuple[str, Learned]:
    """Where weights are loaded, and the records of what they have learned; none of weights that start here."""
    spec = plan.spec.agents[owner]
    if spec.weights is not None:
        return f"agents.{owner}.weights", told_by(Path(spec.weights))
    if owner in modules:
        known = [list(vars(part)[ATTRIBUTE]) for part in modules[owner].modules() if ATTRIBUTE in vars(part)]
        return f"agents.{owner}", [one for part in known for one in part] if known else [None]
    path = spec.model.config.get("path") if spec.model is not None else None
    if isinstance(path, str):
        return f"agents.{owner}.model.{spec.model.name if spec.model else ''}.path", told(Path(path))
    return "", []


def told(folder: Path) -> Learned:
    """What a folder that kdmesh wrote says its weights have learned; of any other folder it is not known.

    The weights' file is asked first: another may have been put into its place, or it into another's folder.
    """
    if (said := in_header(folder / WEIGHTS)) is not None:
        return said
    config = _config(folder)
    learned = config.get(LEARNED) if config else None
    return learned if isinstance(learned, list) else [None]


def told_by(file: Path) -> Learned:
    """What the weights in a file have learned, by its header, which stays when it is moved, or else by its folder."""
    said = in_header(file)
    return told(file.parent) if said is None else said


def _config(folder: Path) -> dict[str, object] | None:
    for name in (OURS, CONFIG):
        try:
            config = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and "kdmesh" in config:
            return config
    return None


def _silent(plan: Plan, owner: str) -> bool:
    """Whether weights are of a version of kdmesh that did not say, and whose splits moved with the run's seed."""
    weights = plan.spec.agents[owner].weights
    config = None if weights is None else _config(Path(weights).parent)
    return config is not None and "learned_from" not in config


def _everything(plan: Plan, loaded: dict[str, Learned], own: Record) -> dict[str, Learned]:
    """What each agent has learned when the run is over: of these data, of what it started from, of its teachers."""
    begun: dict[str, Learned] = {name: [own] if owner in plan.trainable else [] for name, owner in plan.owner.items()}
    if not any(loaded.values()):
        return begun
    before: dict[str, dict[str, None]] = {}  # node -> those that it hears, follows, or starts like
    for edge in plan.edges:
        before.setdefault(edge.target, {})[edge.source] = None
    for name, owner in plan.owner.items():
        ema = plan.spec.agents[owner].ema
        before.setdefault(name, {}).update(dict.fromkeys([origin(plan, owner), *([ema.of] if ema else [])]))
    for name, learned in begun.items():
        reached = {name: None}
        for node in (waiting := [name]):  # grows while it is read
            new = [other for other in before.get(node, ()) if other not in reached]
            reached.update(dict.fromkeys(new))
            waiting += new
        learned += [one for node in reached if node in plan.owner for one in loaded[plan.owner[node]]]
        begun[name] = [one for number, one in enumerate(learned) if one not in learned[:number]]
    return begun
