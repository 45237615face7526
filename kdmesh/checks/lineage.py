"""Where weights come from: loaded ones must not have learned what is measured here, and every agent's folder tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.files import CONFIG, OURS, WEIGHTS, read
from kdmesh.graph.heard import links, reached
from kdmesh.graph.looked_up import lookup
from kdmesh.graph.served import is_served
from kdmesh.plugins import registry
from kdmesh.spec import DataSpec
from kdmesh.streams.learned import LEARNED, Leak, Record, carried, changes, in_header, overlap, record, untold
from kdmesh.streams.private import told_part

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

Learned = list[Record | None]
"""The records of some weights; None stands for something that is not known."""

Parts = frozenset[tuple[str, str]]
"""Streams, each with the owner of the shard of it that is meant, "" for the whole."""


def trace(plan: Plan, found: Checked, modules: Mapping[str, nn.Module]) -> None:
    """Fill in ``found.learned``; refuse weights that have learned a held-out sample, and mark what is not known."""
    data = plan.spec.data or DataSpec.model_validate("python:given")
    loaded: dict[str, Learned] = {}
    unknown: dict[str, None] = {}
    tables = [found.table, *([told_part(found.table, found.streams)] if plan.withholding else [])]
    for owner in dict.fromkeys(plan.owner.values()):
        where, loaded[owner] = _loaded(plan, owner, modules)
        for one in loaded[owner]:
            try:
                leaks = [overlap(one, table, found.streams) for table in tables] if one is not None else []
                leak = next((one for one in leaks if one is not None), None)
                why = min((untold(one, table) for table in tables), key=len) if one is not None else ""
            except ValueError:
                one, leak, why = None, None, ""
            if one is None:
                unknown[owner] = None
                continue
            if leak is not None:
                _tell(found, owner, where, one, leak, data)
            if why:
                found.mark(
                    f"whether the weights of {owner} have learned samples that are tested here is not known: of "
                    f"{one['source'] or one['dataset']}, from which they or their teachers learned, {why}"
                )
    found.learned = _everything(plan, found, loaded, data, tables[-1])
    old = [name for name in unknown if _silent(plan, name)]
    if unknown and (data.seed or old):
        names = ", ".join(unknown if data.seed else old)
        found.mark(
            f"data.seed is {data.seed}, and what the weights of {names} were trained on is not known: if it was this "
            "data under another seed, they have seen samples that are tested here"
        )


def _tell(found: Checked, owner: str, where: str, one: Record, leak: Leak, data: DataSpec) -> None:
    """Refuse weights that have learned samples of a held-out split; mark it of so few that figures cannot show them."""
    many = f"{leak.count:,} of the {leak.whole:,} {leak.split} samples"
    many += " (their queries)" if found.table.lists and not leak.moved else ""
    named = one["source"] or one["dataset"]
    if leak.moved:
        raise MeshError(
            f"these weights were trained on the same data, split in another way (data seed "
            f"{one['splits'].get('seed')}; here {data.seed}): {many} may be among their training samples",
            where=where,
            instead=f"{changes(one, found.table, data)}, as when they were trained; or train them on this split",
        )
    if leak.few:
        found.mark(
            f"{many} have the values of samples that the weights of {owner} or their teachers learned from {named}: no "
            "more than data repeat by chance, or than the figures can show"
        )
        return
    raise MeshError(
        f"{many} were used to train these weights or their teachers, or to choose when to stop: they learned from "
        f"{named}, data seed {one['splits'].get('seed')}, which has the same samples, perhaps in another order",
        where=where,
        instead=f"the {one['samples']:,} samples of {named} as they were split then, a {leak.split} file that shares "
        "none with it, or weights that are trained on this split",
    )


def _loaded(plan: Plan, owner: str, modules: Mapping[str, nn.Module]) -> tuple[str, Learned]:
    """Where weights are loaded, and the records of what they have learned; none of weights that start here."""
    spec = plan.spec.agents[owner]
    if spec.weights is not None:
        return f"agents.{owner}.weights", told_by(Path(spec.weights))
    if owner in modules:
        return f"agents.{owner}", carried(modules[owner])
    if lookup(spec.model, registry()) or is_served(spec.model, registry()):
        return f"agents.{owner}.model", [None]  # neither a store nor a server says what those learned who answered
    path = spec.model.config.get("path") if spec.model is not None else None
    if isinstance(path, str):
        return f"agents.{owner}.model.{spec.model.name if spec.model else ''}.path", told(Path(path))
    return "", []


def told(folder: Path) -> Learned:
    """What a folder that kdmesh wrote says its weights have learned; of any other folder it is not known.

    The weights' files are asked first: others may have been put into their place, or they into another's folder.
    """
    for file in (folder / WEIGHTS, *sorted(folder.glob("*.safetensors"))):
        if (said := in_header(file)) is not None:
            return said
    config = _config(folder)
    learned = config.get(LEARNED) if config else None
    return learned if isinstance(learned, list) else [None]


def told_by(file: Path) -> Learned:
    """What the weights in a file have learned, by its header, which stays when it is moved, or else by its folder."""
    learned = in_header(file)
    return told(file.parent) if learned is None else learned


def _config(folder: Path) -> dict[str, object] | None:
    for name in (OURS, CONFIG):
        try:
            config = json.loads(read(folder / name))
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


def _everything(
    plan: Plan, found: Checked, loaded: dict[str, Learned], data: DataSpec, table: Table
) -> dict[str, Learned]:
    """What each agent has learned when the run is over: of these data, of what it started from, of its teachers.

    ``table``: the samples of which a record may have sums.
    """
    before = links(plan)
    records: dict[Parts, Record] = {}
    begun: dict[str, Learned] = {}
    for name, owner in plan.owner.items():
        nodes = reached(name, before)
        learned: Learned = [_own(plan, found, data, nodes, records, table)] if owner in plan.trainable else []
        learned += [one for node in nodes if node in plan.owner for one in loaded[plan.owner[node]]]
        begun[name] = [one for number, one in enumerate(learned) if one not in learned[:number]]
    return begun


def _divided(stream: Stream, agent: str) -> bool:
    """Whether an agent has a part of a stream, and not all of it."""
    return stream.shards is not None and stream.sees(agent)


def _own(
    plan: Plan, found: Checked, data: DataSpec, reached: Collection[str], records: dict[Parts, Record], table: Table
) -> Record:
    """The record of the samples of this run that reach an agent or whom it hears; private ones are only counted."""
    parts: Parts = frozenset(
        (edge.stream, edge.target if _divided(found.streams[edge.stream], edge.target) else "")
        for edge in plan.edges
        if edge.target in reached
    )
    if parts not in records:  # agents that learned the same have one record
        taught, chose, private = (torch.zeros(len(found.table), dtype=torch.bool) for _ in range(3))
        for name, owner in parts:
            taught[found.streams[name].rows_for(owner) if owner else found.streams[name].every] = True
        if "validation" in found.streams:
            chose[found.streams["validation"].rows] = True
        for stream in found.streams.values():
            if stream.private:
                private[stream.rows] = True
        if found.reading.trained and "train" in found.streams:  # vocabularies are made from it
            taught[found.streams["train"].rows] = True
        hidden = int((private & (taught | chose)).sum())
        learned, used = ((part & ~private).nonzero().flatten() for part in (taught, chose))
        records[parts] = record(table, data, learned, used, hidden)
    return records[parts]
