"""What objectives and rules are given beside signals: labels, ids, what rows are about, and columns of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.contracts.metric import own_classes
from kdmesh.errors import MeshError, nearest
from kdmesh.graph.edges import LABELS
from kdmesh.graph.reach import speaker
from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.rollouts import Rollouts

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.loader import Batch, BatchSource
    from kdmesh.hosts.state import HostState
    from kdmesh.streams.table import Table


def of_stream(host: HostState, edge: Edge, asks_labels: bool = False) -> dict[str, Any]:
    """What an objective's `setup` gets, of the whole stream; ``asks_labels``: on a flow from labels, these too."""
    spec = host.plan.spec.streams.get(edge.stream)
    if edge.needs and spec is not None and spec.generated_by is not None:
        return {}  # it is yet to be written
    if not edge.needs:
        return {"labels": _classes(host, edge)} if asks_labels and edge.source == LABELS else {}
    shard = host.loader.shard(edge.stream, edge.target, torch.device(host.plan.train(edge.target).device))
    known: dict[str, Any] = {"ids": shard.ids, "labels": shard.y}
    found = {name: known[name] for name in edge.needs if name in known}
    if "tokens" in edge.needs:
        found["tokens"] = host.reading.encoder(edge.target).words()
        found["source_tokens"] = host.reading.encoder(speaker(edge.source, host.plan.consensus)).words()
    return found


def _classes(host: HostState, edge: Edge) -> Tensor | None:
    """The classes that a flow from labels teaches, ``[n]`` int64, as its reader's columns count them.

    None where labels are no classes of the data, or are not there yet.
    """
    plan, written = host.plan, host.plan.spec.streams.get(edge.stream)
    if plan.task.labels != "classes" or plan.task.outputs != "labels" or (written and written.generated_by):
        return None
    y = host.loader.shard(edge.stream, edge.target, torch.device(plan.train(edge.target).device)).y
    classes = plan.spec.agents[edge.target].labels
    if y is None or classes is None:
        return y
    columns, known = own_classes(y, classes)
    return columns[known]


def of_batch(
    needs: tuple[str, ...], shard: BatchSource, batch: Batch, theirs: Batch | None
) -> dict[str, Tensor | None]:
    """What an objective is called with: of the reader's batch, and, between unlike tokens, of the source's."""
    found: dict[str, Tensor | None] = {}
    if isinstance(shard, Rollouts):
        found |= shard.facts(needs, batch.at)
    if "ids" in needs:
        found["ids"] = shard.samples(batch.at)
    if "pairs" in needs:
        found["pairs"] = batch.x.pairs
    if "spans" not in needs:
        return found | ({"labels": batch.y} if "labels" in needs else {})
    assert theirs is not None and not isinstance(batch.x, Tensor) and not isinstance(theirs.x, Tensor)
    found |= {"spans": batch.x.spans, "source_spans": theirs.x.spans}
    if "labels" in needs:  # what is read is known, also where a stream hides what is to be learned
        found |= {"labels": batch.x.targets, "source_labels": theirs.x.targets}
    return found


def ids(shard: BatchSource, at: Tensor | None = None) -> Tensor:
    """The stable id of each row's sample, ``[B]`` int64 on the view's device: of samples ``at``, or of all."""
    if at is not None and not shard.units:
        return shard.samples(at).to(shard.device)
    if at is not None and isinstance(shard, Rollouts):
        return shard.unit_samples(at)
    assert isinstance(shard, ShardView)  # what is written is read by the batch
    every = shard.ids if shard.counts is None else shard.ids.repeat_interleave(shard.counts.cpu())
    return (every if at is None else every[shard.rows(at).cpu()]).to(shard.device)


def distinct(plan: Plan, table: Table) -> dict[str, list[str]]:
    """The different values of each column that a rule or a metric reads, sorted, in the data of all hosts."""
    asked = [node.column for node in plan.consensus.values()] + [ref.by for ref in plan.metrics]
    asked += [edge.group for edge in plan.edges]
    names = dict.fromkeys(name for name in asked if name in table.columns)
    return {name: sorted(set(table.columns[name]) - {""}) for name in names}


def numbers(host: HostState, column: str, shard: ShardView) -> Tensor:
    """The number of each sample's value in a column of the data, among those of :func:`distinct`.

    ``[n]`` int64, -1 for none; where the task asks per token, one for each unit of the sample. Kept once made.
    """
    key = (column, id(shard))
    if key not in host.numbers:
        found = _all_numbers(host, column)[shard.ids].to(shard.device)
        host.numbers[key] = found if shard.counts is None else torch.repeat_interleave(found, shard.counts)
    return host.numbers[key]


def numbers_at(host: HostState, column: str, shard: BatchSource, at: Tensor | None = None) -> Tensor:
    """The same of each row that is about samples at positions ``at``, None: about all of a shard view.

    Of texts that an agent wrote it is the value of the sample that was answered.
    """
    if isinstance(shard, Rollouts):
        assert at is not None  # nobody has all that is written
        return _all_numbers(host, column)[shard.unit_samples(at).cpu()].to(shard.device)
    assert isinstance(shard, ShardView)  # what Python writes has no columns
    found = numbers(host, column, shard)
    return found if at is None else found[shard.rows(at)]


def _all_numbers(host: HostState, column: str) -> Tensor:
    """Of every sample of the table, ``[N]`` int64, on the CPU."""
    key = (column, 0)
    if key not in host.numbers:
        known = {value: number for number, value in enumerate(host.values[column])}
        host.numbers[key] = torch.tensor([known.get(value, -1) for value in host.table.columns[column]])
    return host.numbers[key]


def columns(host: HostState, node: ConsensusNode) -> list[str]:
    """The different values of the column of the data that a rule reads, sorted."""
    if node.column not in host.values:
        raise MeshError(
            f"the data have no column {node.column!r}",
            where=f"consensus.{node.name}.rule.{node.rule.name}.column",
            instead=nearest(node.column, host.table.columns, "columns"),
        )
    return host.values[node.column]
