"""Filling the store ahead: what a run asks of a frozen agent, what of it is not there, and the forwards for that."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kdmesh.errors import FAULTS
from kdmesh.hosts import build, stored
from kdmesh.hosts.forms import form_of
from kdmesh.hosts.loader import AGAIN
from kdmesh.store.forms import EXACT
from kdmesh.store.key import MEASURED
from kdmesh.streams.order import steps_per_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kdmesh.graph.plan import Stage
    from kdmesh.hosts.state import HostState

PIECES = 16  # that an actor's share of an ask is cut into, about: so often its progress is told
MOST = stored.ROWS  # samples of a piece, about: what a kill can cost


class Ask(NamedTuple):
    """What a run asks of a frozen agent: values by name, and its logits, on a stream, in forwards of one size.

    ``teaching``: of samples as it sees them to teach, in its views of these numbers, ``draws``, and in the form of its
    answers; else of samples as they are.
    """

    agent: str
    stream: str
    names: tuple[str, ...]
    size: int
    teaching: bool
    draws: tuple[int, ...] = (0,)
    logits: bool = True


class Piece(NamedTuple):
    """Some of what is asked: of samples at positions ``at [n]`` of the stream, in one view."""

    ask: Ask
    draw: int
    at: Tensor


@dataclass(frozen=True)
class Filled:
    """What was done: ``rows`` (samples, each in one view) that were asked for, ``forwarded`` of them, ``written``.

    ``lost``: those that the store did not take; ``forwards``: of the model, ``kept``: bytes that were written,
    ``seconds``: that it took; ``notes``: of the store.
    """

    rows: int = 0
    forwarded: int = 0
    written: int = 0
    lost: int = 0
    kept: int = 0
    forwards: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __add__(self, other: Filled) -> Filled:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items() if name != "notes"}
        return replace(self, **sums, notes=tuple(dict.fromkeys((*self.notes, *other.notes))))


class Passed(NamedTuple):
    """A pass of an agent over a stream, for those who read it; ``measuring``: on the samples as they are."""

    stream: str
    outputs: tuple[str, ...]
    measuring: bool


def asks(host: HostState, agent: str, passes: Iterable[Passed], steps: dict[str, int]) -> list[Ask]:
    """All that a run asks of an agent. ``passes``: over whole streams; ``steps``: of each stage, at most."""
    one, size = host.agents[agent], host.forward_size(agent)
    found: dict[Ask, None] = {}
    for stage in host.plan.stages:
        found.update(dict.fromkeys(_live(host, stage, agent, steps[stage.name])))
    for each in passes:
        layers = [
            one.makes[name].layer if name in one.makes and one.makes[name].whole is not None else name
            for name in each.outputs
        ]
        names = tuple(dict.fromkeys(name for name in layers if name))
        found[Ask(agent, each.stream, names, size, not each.measuring, logits="" in layers)] = None
    for stream in ("validation", "test"):
        if stream in host.streams and host.loader.shard(stream, agent, one.device).truth is not None:
            found[Ask(agent, stream, (), MEASURED, False)] = None
    return sorted(found, key=lambda ask: -len(ask.names))  # who asks for more first: less is then there, too


def _live(host: HostState, stage: Stage, agent: str, steps: int) -> Iterator[Ask]:
    """What a stage asks of an agent within its steps."""
    one, settings = host.agents[agent], host.plan.train(stage.agents[0]) if stage.agents else host.plan.spec.train
    for phase in stage.phases.values():
        names = build.taps(host, phase.edges)
        for op in (op for op in phase.ops if op.node == agent and op.kind in ("f", "f+")):
            shard = host.loader.shard(op.stream, agent, one.device, told=True)
            draws: tuple[int, ...] = (0,)
            if one.view is not None:
                epochs = -(-steps // steps_per_epoch(len(shard), settings.batch_size, settings.drop_last))
                first = AGAIN if shard.stream.replay else 0
                most = min(epochs, one.view.draws or epochs)  # every so many they come again
                draws = tuple(sorted({one.view.draw(first + epoch) for epoch in range(max(1, most))}))
            size = host.forward_size(agent)
            logits = stored.is_read(host, agent)
            yield Ask(agent, op.stream, names.get((agent, op.stream), ()), size, True, draws, logits)


class Filler:
    """A host's agents, asked for what the store lacks."""

    def __init__(self, host: HostState) -> None:
        """``host``: with a store."""
        self.host = host
        self._stored: dict[Ask, stored.Stored] = {}

    def survey(self, wanted: Iterable[Ask], actors: int = 1) -> tuple[int, list[Piece]]:
        """How many rows are asked for, and what the store lacks, in pieces for so many ``actors``.

        :class:`kdmesh.hosts.identity.Unknown` for what is not kept.
        """
        rows, pieces, planned = 0, list[Piece](), dict[str, set[bytes]]()
        for ask in wanted:
            own = self._of(ask)
            for draw in ask.draws:
                at, keys = own.lacking(draw)
                new = torch.zeros(len(at), dtype=torch.bool)
                for entry, digests in keys.items():
                    known = planned.setdefault(entry, set())
                    each = [row.tobytes() for row in digests.numpy()]
                    new |= torch.tensor([one not in known for one in each], dtype=torch.bool)
                    known.update(each)
                rows += own.different(draw)
                at = at[new]
                length = min(MOST, max(1, -(-len(at) // (PIECES * actors))))
                length = -(-length // own.rows) * own.rows
                pieces += [Piece(ask, draw, part) for part in at.split(length)] if len(at) else []
        return rows, pieces

    def forwards(self, piece: Piece) -> int:
        """How many forwards a piece takes; of texts of many shapes a few more."""
        return -(-len(piece.at) // self._of(piece.ask).rows)

    def __call__(self, piece: Piece) -> Filled:
        """Forward what is not there of a piece, and write it."""
        assert self.host.shelf is not None
        one = self.host.agents[piece.ask.agent]
        own, hits = self._of(piece.ask), self.host.shelf.of(piece.ask.agent)
        before, forwards, start = replace(hits), one.forwards, time.perf_counter()
        self.host.threads(one.weights.settings.threads)
        try:
            lost = own.fill(piece.at, piece.draw)
        except FAULTS as error:
            build.attribute_error(self.host, one.name, error, f"the stream {piece.ask.stream!r}")
        notes = [*self.host.shelf.store.notes, *self.host.shelf.left.values()]
        return Filled(
            len(piece.at),
            hits.forwarded - before.forwarded,
            hits.written - before.written,
            lost,
            hits.kept - before.kept,
            one.forwards - forwards,
            time.perf_counter() - start,
            tuple(notes),
        )

    def _of(self, ask: Ask) -> stored.Stored:
        if ask not in self._stored:
            one = self.host.agents[ask.agent]
            shard = self.host.loader.shard(ask.stream, ask.agent, one.device, told=ask.teaching)
            self.host.threads(one.weights.settings.threads)
            form = form_of(self.host, ask.agent) if ask.teaching else EXACT
            self._stored[ask] = stored.opened(
                self.host, one, shard, ask.names, ask.size, view=ask.teaching, form=form, logits=ask.logits
            )
        return self._stored[ask]
