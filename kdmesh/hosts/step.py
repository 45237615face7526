"""What is known within one step on one host, and what a host tells of the steps that it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdmesh.graph.steps import Op
    from kdmesh.hosts.guard import Oddity
    from kdmesh.hosts.loader import Batch
    from kdmesh.hosts.ragged import Value
    from kdmesh.signals import Signal

FROZEN = "#frozen"  # among what a forward gave: its logits as they are before anyone is updated


class StepContext:
    """What is known within one step: batches, forwards, consensus."""

    __slots__ = ("batches", "combined", "kept", "mixes", "signals", "softened", "step", "values")

    def __init__(self, step: int) -> None:
        self.step = step
        self.batches: dict[int, Batch | None] = {}
        self.values: dict[Op, Value] = {}
        self.signals: dict[tuple[Op, str, bool, str], Signal] = {}
        self.softened: dict[tuple[int, float], tuple[Signal, Signal]] = {}  # by the signal's id and the temperature
        self.combined: dict[tuple[str, str | None], Signal | None] = {}
        self.kept: dict[tuple[str, ...], Value] = {}
        self.mixes: dict[tuple[str, str], tuple[Tensor, float | Tensor]] = {}  # by agent and stream: partners, shares


class Turn(NamedTuple):
    """Where in its rounds a phase begins.

    ``round``: from 1, None: none; ``agreements``: by agent, as last measured; ``who``: where not all need to, a sum of
    who took part until now.
    """

    round: int | None = None
    agreements: Mapping[str, float] = {}
    who: str = ""


ALONE = Turn()
"""Of a phase that is in no rounds."""


class Losses(NamedTuple):
    """The loss of each flow in one step, weighted; None of a flow that had none."""

    step: int
    flows: tuple[int, ...]
    values: tuple[float | None, ...]


class Line(NamedTuple):
    """One text that was written, see :class:`kdmesh.contracts.filter.WrittenText`; ``dropped``: why, "" if kept;
    ``label``: its class, "" where it has none.

    ``told``, ``counted``: where a rule chose it of several, see :class:`kdmesh.contracts.text_rule.Choice`.
    ``reward``: how right it is, None where nothing says so; ``numbers``: what each verifier said, where there are
    several; ``late``: those that took too long.
    """

    sample: int
    draw: int
    prompt: str
    text: str
    tokens: int
    ended: bool
    dropped: str
    at: str
    label: str = ""
    told: dict[str, Any] | None = None
    counted: tuple[str, ...] = ()
    reward: float | None = None
    numbers: dict[str, float | None] = {}  # noqa: RUF012  # never written to
    late: tuple[str, ...] = ()


class Wrote(NamedTuple):
    """The texts that were written together for a stream.

    ``step``: of the phase, at which its agent, after so many ``updates`` of its weights, wrote them; ``weights``: their
    sha256, "" where it was not made; ``empty``: how many of the steps that read them have no text that is kept;
    ``rule``: by which they were chosen of others, "" where the agent wrote them.
    """

    stream: str
    agent: str
    phase: str
    step: int
    updates: int
    weights: str
    lines: list[Line]
    empty: int
    rule: str = ""


class Report(NamedTuple):
    """A host's report on its steps: mean losses by weights, the oddities of outputs in some, losses by flow, and texts
    that were written."""

    losses: dict[str, float]
    odd: list[Oddity]
    flows: list[Losses]
    wrote: list[Wrote]


def frozen_copy(value: Value) -> Value:
    """What a forward gave, with logits as they were before anyone was updated: for who reads them later."""
    return value[1].get(FROZEN, value[0]), value[1]
