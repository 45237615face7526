"""Histories: what a consensus and its sources said of each sample in a round, kept in the store where a file asks."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.files import to_json
from kdmesh.hosts import measure
from kdmesh.signals import Signal
from kdmesh.signals.lazy import leaves, rebuild
from kdmesh.store import Fingerprint
from kdmesh.store.history import History, Retention, history_key
from kdmesh.store.signals import TEXTS
from kdmesh.streams.contents import DIGEST
from kdmesh.streams.tokens import ranges, starts_of
from kdmesh.streams.unread import Numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.packing import Published
    from kdmesh.hosts.shelf import Shelf
    from kdmesh.hosts.state import HostState


@torch.no_grad()
def remember(
    host: HostState, name: str, run: dict[str, Any], round: int, published: tuple[Published, ...]
) -> dict[str, str]:
    """Keep a round of a consensus, and of its sources where that is asked for; return their entries, by who spoke.

    ``run``: which run this is. A round that is there, as after a run was resumed, is not added again. Nothing is kept
    where there is no store, or of private samples.
    """
    asked, shelf, consensus = host.plan.spec.consensus[name].history, host.shelf, host.consensus[name]
    node = consensus.node
    stream = host.streams[node.stream].base or node.stream
    shard = host.loader.shard(stream, measure.owner(host, node.members[0].source, stream), host.device)
    if asked is None or shelf is None or shard.stream.private:
        return {}
    sent, errors = measure.arrived(host, published)
    softened = {} if node.space == "logits" else {"temperature": node.temperature}
    about: dict[str, Any] = {"space": node.space, **softened, "classes": _listed(node.labels)}
    said = {name: (measure.combined(host, name, sent, errors, shard.truth, shard), about)}
    for edge in node.members if asked.sources else ():
        value, classes = sent.get((edge.source, edge.output)), host.plan.spec.agents.get(edge.source)
        if value is not None and classes is not None:
            own = {"space": edge.form, "output": edge.output, "classes": _listed(classes.labels)}
            said[edge.source] = Signal(value, edge.form), own
    retention = Retention.of(asked.keep)
    found = {}
    for who, (signal, signed) in said.items():
        if signal is not None:
            key = history_key(run, who, stream, signed, retention)
            _add(host, shelf, History(shelf.store.entry(key), retention), signal, shard, round)
            found[who] = key.digest
    return found


def remember_texts(
    host: HostState, stream: str, run: dict[str, Any], round: int, records: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """Keep a round of a stream that a rule made, a record of each sample; return its entry by its name."""
    spec, shelf = host.plan.spec.streams[stream], host.shelf
    if spec.history is None or spec.prompts is None or shelf is None:
        return {}
    retention = Retention.of(spec.history)
    key = history_key(run, stream, spec.prompts, {"space": TEXTS}, retention)
    first = {one["sample"]: one for one in reversed(records)}  # one epoch's end and the next's start may ask twice
    rows = b"".join(_digest(one) for one in first.values())
    History(shelf.store.entry(key), retention).add_texts(
        torch.frombuffer(bytearray(rows), dtype=torch.uint8).view(-1, DIGEST),
        [to_json(one) for one in first.values()],
        round,
        Fingerprint.here(threads=1),
        ids=torch.tensor([*first]),
    )
    return {stream: key.digest}


def _digest(record: dict[str, Any]) -> bytes:
    """Of a prompt, and its number in the data: two may ask the same."""
    return blake2b(json.dumps([record["sample"], record["prompt"]]).encode(), digest_size=DIGEST).digest()


def _add(host: HostState, shelf: Shelf, history: History, signal: Signal, shard: ShardView, round: int) -> None:
    """Add what was said of the samples that were answered."""
    value, at = signal.value, torch.arange(len(shard))
    counts = None if isinstance(shard.x, Numbers) or len(value) == len(shard) else shard.x.counts.cpu()
    starts = None if counts is None else starts_of(counts)
    if signal.weights is not None:
        rows = (signal.weights != 0).cpu()
        at = _whole(rows, starts).nonzero()[:, 0]
        index = at if counts is None or starts is None else ranges(starts[at], counts[at])
        value = rebuild(value, [leaf[index.to(leaf.device)] for leaf in leaves(value)])
        starts = None if counts is None else starts_of(counts[at])
    threads = max((one.weights.settings.threads for one in host.agents.values()), default=torch.get_num_threads())
    fingerprint = Fingerprint.here(host.device, threads)  # a coordinator may have no agents
    history.add(shelf.digests_of(shard)[at], value, starts, round, fingerprint, ids=shard.samples(at))


def _whole(rows: Tensor, starts: Tensor | None) -> Tensor:
    """Samples ``[n]`` bool of which every row was answered."""
    if starts is None:
        return rows
    sums = torch.cat([torch.zeros(1, dtype=torch.int64), rows.long().cumsum(0)])[starts]
    return sums.diff() == starts.diff()


def _listed(classes: Any) -> list[int] | None:
    return None if classes is None else list(classes)
