"""Agents of a mesh are asked what they say of a training stream, through the store, and nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.backends.inline import InlineBackend
from kdmesh.engine.check import examine
from kdmesh.engine.looked_up import settled
from kdmesh.engine.spared import kept_at
from kdmesh.errors import MeshError, nearest
from kdmesh.graph.looked_up import lookup
from kdmesh.graph.served import ELSEWHERE, is_served
from kdmesh.hosts.packing import unpack
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.signals.lazy import dense
from kdmesh.store import default_limit
from kdmesh.streams.tokens import Encoded
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan

TRAIN = "train"
FEATURES = 512  # classes of three tokens in a row, by which texts are compared
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Answers:
    """What agents say of a stream's samples.

    Attributes:
        ids: of the samples, ``[N]`` int64: their rows in the table.
        logits: by agent, ``[R, C]``; R is N, or, where a sample has several answers, as many as ``starts`` says.
        starts: where each sample's rows begin, ``[N + 1]``; None where each has one.
        labels: of rows, ``[R]`` int64; None where the stream has none.
        classes: of samples, ``[N]`` int64, for whoever keeps their shares; None where labels are hidden, or no classes.
        values: what a model is given of each sample, ``[N, D]`` float32.
        weights: by agent, the sha256 of its weights, or the entry of the store in which it looks its answers up.
        found: what the check found.
    """

    ids: Tensor
    logits: dict[str, Tensor]
    starts: Tensor | None
    labels: Tensor | None
    classes: Tensor | None
    values: Tensor
    weights: dict[str, str]
    found: Checked


def ask(plan: Plan, agents: Sequence[str], stream: str, store: str | None, table: Any = None) -> Answers:
    """Ask agents about a stream. MeshError for one that is held out, private or divided, or for other answers.

    ``store``: as runs have it; ``table``: the data, where they are not the file's.
    """
    for name in agents:
        _refuse(plan, name)
    plan = replace(plan, spec=settled(plan.spec, store))
    found = examine(plan, table=table)
    rows = _rows(found, stream)
    config = HostConfig(
        plan, {}, found.shapes, tokenizers=found.reading.files(), left_out=found.left_out, learned=found.learned,
        statistics=found.statistics, inputs=found.reading.inputs, store=kept_at(store), store_limit=default_limit(),
    )  # fmt: skip
    backend = InlineBackend()
    backend.open(config, Source(found.table, read=found.reading.read))
    try:
        logits, starts, labels, weights, values = {}, None, None, {}, None
        for name in agents:
            host: Any = next(backend.hosts[host] for host, held in plan.hosts.items() if name in held)
            published = unpack(host.publish(name, stream, ("",), True), CPU)
            ((_, (value, more)),) = published.items()
            logits[name], starts = dense(value).float(), more.get("starts")
            shard = host.loader.shard(stream, name, host.agents[name].device)
            labels, weights[name] = shard.y, _known_by(plan, name) or host.agents[name].weights.sha256()
            values = _values(shard.x) if values is None else values
    finally:
        backend.close()
    if values is None:
        values = _values(found.table.numbers[rows])
    shown = found.streams[stream].labelled and found.table.strata is not None
    known = found.table.strata[rows] if shown and found.table.strata is not None else None
    return Answers(rows, logits, starts, labels, known, values, weights, found)


def _refuse(plan: Plan, name: str) -> None:
    """MeshError for an agent that cannot be compared with others."""
    if name not in plan.spec.agents:
        raise MeshError(f"no agent {name!r}", where="--agents", instead=nearest(name, plan.spec.agents, "agents"))
    spec = plan.spec.agents[name]
    if name in plan.inputs:
        what = f"{name} sees what another agent says, in the place of samples"
        raise MeshError(what, where="--agents", instead="agents that see samples")
    if spec.labels is not None:
        what = f"{name} knows the classes {spec.labels} alone"
        raise MeshError(what, where="--agents", instead="agents that know all classes")
    owner = plan.spec.agents[plan.owner[name]]
    if is_served(owner.model, registry()):
        raise MeshError(f"{name} {ELSEWHERE}: it is asked in runs alone", where="--agents",
                        instead="agents here; what an endpoint said in a run is in the store")  # fmt: skip
    if lookup(owner.model, registry()):
        return
    if owner.weights is None and owner.model is not None and not (owner.model.config.get("path")):
        what = f"{name} has learned nothing yet: its weights are drawn at random"
        instead = (
            "weights: FILE, of a run that trained it (runs/.../agents/NAME/model.safetensors); of texts, its folder"
        )
        raise MeshError(what, where=f"agents.{name}.weights", instead=instead)


def _known_by(plan: Plan, name: str) -> str:
    """The entry in which an agent looks its answers up; "" of one that computes."""
    model = plan.spec.agents[plan.owner[name]].model
    return f"entry {model.config['entry']}" if model is not None and lookup(model, registry()) else ""


def _rows(found: Checked, stream: str) -> Tensor:
    """The rows of a stream that may be selected from."""
    if stream not in found.streams:
        raise MeshError(f"no stream {stream!r}", where="--stream", instead=nearest(stream, found.streams, "streams"))
    one, train = found.streams[stream], found.streams[TRAIN]
    if not bool(torch.isin(one.every, train.every).all()):
        what = f"{stream} has samples that are not of train, and nothing is chosen by what is held out"
        raise MeshError(what, where="--stream", instead="train, or a stream of it")
    if one.private or one.shards is not None:
        what = f"{stream} is {'private' if one.private else 'divided among agents'}"
        raise MeshError(what, where="--stream", instead="a stream that all see")
    return one.rows


def _values(x: Tensor | Unread | Encoded) -> Tensor:
    """What a model is given of each sample, as points; of texts, how often classes of three tokens in a row occur."""
    if isinstance(x, Unread):
        x = x[:]
    if isinstance(x, Tensor):
        return x.cpu().float().flatten(1)
    points = torch.zeros(len(x), FEATURES)
    for row in range(len(x)):
        ids = x.select(torch.tensor([row])).whole().ids[0].tolist()
        for three in zip(ids, ids[1:], ids[2:], strict=False):
            points[row, hash(three) % FEATURES] += 1
    return points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
