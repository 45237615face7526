"""Still forwards of texts: samples differ in length, and so do the rows that a model gives for each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.signals.lazy import Lazy, again, apart, joined
from kdmesh.streams.tokens import Encoded, padded_length, ranges, starts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.agents.agent import Agent, Value
    from kdmesh.agents.feed import Lane
    from kdmesh.agents.lesson import Lesson
    from kdmesh.streams.tokens import Tokens

ROWS = 8  # of a still forward on a CPU: more gain it little there, and rows that repeat a sample are for nothing
STEPS = 16  # that an agent which does not change answers together; as many more may fill up its shapes
TOKENS = 2**13  # of these steps: what is remembered of them stays small


def still(agent: Agent, x: Tokens | Encoded, fixed: int, names: tuple[str, ...]) -> Value:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    return _answers(agent, x, _rows(x, fixed), names).all()


def ahead(lesson: Lesson, agent: Agent, lane: Lane, names: tuple[str, ...]) -> Ahead | None:
    """What answers for several steps of a lesson at once; None where the agent may change, or sees no texts as such.

    Nor where it makes wide logits, or a signal of such: those of several steps would fill memory.
    """
    plan, task = lesson.host.plan, lesson.host.plan.spec.task
    moves = plan.owner[agent.name] in plan.trainable or agent.weights.ema is not None
    made = not getattr(agent.module, "projects", False) or not all(map(agent.layer, names))
    if moves or (made and task == "language_modelling") or agent.view is not None or not isinstance(lane.x, Encoded):
        return None
    size, drop, last = lesson.settings.batch_size, lesson.settings.drop_last, max(lesson.ends.values())

    def batches(step: int) -> list[Tensor]:
        return lane.ahead(lesson.position(step, lane), size, drop, min(2 * STEPS, last - step))

    return Ahead(agent, lane.x, lesson.host.fixed, names, batches)


class Ahead:
    """The answers of an agent that does not change, for the batches of a few steps at once.

    Each sample's shape is its own, so these are the answers of one step after the other, bit for bit; but samples of
    several batches fill the fixed shapes together, and where rows are left over, samples of later steps take them.
    ``batches(step)``: positions in ``x``, of that step first.
    """

    def __init__(
        self, agent: Agent, x: Encoded, fixed: int, names: tuple[str, ...], batches: Callable[[int], list[Tensor]]
    ) -> None:
        self._agent, self._x, self._names, self._batches = agent, x, names, batches
        self._rows, self._lengths, self._widths = _rows(x, fixed), x.lengths.cpu(), padded_length(x.lengths).cpu()
        self._steps: dict[int, list[int]] = {}  # positions of the steps that are answered
        self._places: dict[int, int] = {}  # of positions among the answers
        self._answers: _Answers | None = None

    def __call__(self, step: int) -> Value:
        """The logits and named values of a step's batch."""
        if step not in self._steps:
            self._forward(step)
        assert self._answers is not None
        return self._answers.of(torch.tensor([self._places[at] for at in self._steps.pop(step)])).all()

    def _forward(self, step: int) -> None:
        """Answer a window of steps from this one on; what is known of its samples, and of later ones, is kept."""
        batches = [at.tolist() for at in self._batches(step)]
        count = self._window(batches)
        self._steps = dict(enumerate(batches[:count], step))
        soon, later = _positions(batches[:count]), _positions(batches[count:])
        kept = [at for at in self._places if at in soon or at in later]
        chosen = self._filled(*([at for at in part if at not in self._places] for part in (soon, later)))
        answers = [self._answers.of(torch.tensor([self._places[at] for at in kept]))] if self._answers and kept else []
        if chosen:
            answers.append(_answers(self._agent, self._x.select(torch.tensor(chosen)), self._rows, self._names))
        self._answers = _Answers.joined(answers)
        self._places = {at: place for place, at in enumerate([*kept, *chosen])}

    def _window(self, batches: list[list[int]]) -> int:
        """How many of the next steps are answered together."""
        tokens = 0
        for number, batch in enumerate(batches[:STEPS]):
            tokens += int(self._lengths[batch].sum())
            if number and tokens > TOKENS:
                return number
        return min(len(batches), STEPS)

    def _filled(self, now: list[int], later: list[int]) -> list[int]:
        """The samples of the window, and so many of later ones as stand in shapes that are forwarded anyway."""
        chosen, widths = list(now), self._widths[now].tolist()
        room = {width: -number % self._rows for width, number in Counter(widths).items()}
        for at, width in zip(later, self._widths[later].tolist(), strict=True):
            if room.get(width, 0):
                room[width] -= 1
                chosen.append(at)
        return chosen


@dataclass
class _Answers:
    """Values by name (logits: "") of n samples, one's rows after the other's; ``counts``: of rows, by what they are."""

    agent: Agent
    values: dict[str, Tensor | Lazy]
    counts: dict[str, Tensor]  # each [n] int64

    def of(self, samples: Tensor) -> _Answers:
        """Those of some samples, in this order."""
        counts = {per: count[samples.to(count.device)] for per, count in self.counts.items()}
        orders = {
            per: ranges(starts_of(count)[samples.to(count.device)], counts[per]) for per, count in self.counts.items()
        }
        values = {
            name: again(value, [part[orders[self.agent.per(name)]] for part in apart(value)])
            for name, value in self.values.items()
        }
        return _Answers(self.agent, values, counts)

    @classmethod
    def joined(cls, parts: list[_Answers]) -> _Answers:
        """Those of one after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        values = {name: joined([part.values[name] for part in parts]) for name in first.values}
        return cls(first.agent, values, {per: torch.cat([part.counts[per] for part in parts]) for per in first.counts})

    def all(self) -> Value:
        """The logits and the other values."""
        return self.values[""], {name: value for name, value in self.values.items() if name}


def _positions(batches: list[list[int]]) -> dict[int, None]:
    """Every position once, in order."""
    return dict.fromkeys(at for batch in batches for at in batch)


def _rows(x: Tokens | Encoded, fixed: int) -> int:
    """How many rows a shape has."""
    return min(fixed, ROWS) if x.device.type == "cpu" else fixed


def _answers(agent: Agent, x: Tokens | Encoded, rows: int, names: tuple[str, ...]) -> _Answers:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    training = agent.module.training
    if training:
        agent.module.eval()
    parts: dict[str, list[Tensor | Lazy]] = {name: [] for name in ("", *names)}
    counts: dict[str, list[Tensor]] = {"samples": [], "units": [], "tokens": []}
    places: list[Tensor] = []
    with torch.no_grad():
        for at, tokens in x.parts(rows):
            own = {"samples": torch.ones_like(tokens.counts), "units": tokens.counts, "tokens": tokens.lengths}
            logits, values = agent.forward(tokens, names)
            for name, value in {**values, "": logits}.items():
                real = int(own[agent.per(name)][: len(at)].sum())
                parts[name].append(again(value, [part[:real] for part in apart(value)]))
            for per, count in own.items():
                counts[per].append(count[: len(at)])
            places.append(at)
    if training:
        agent.weights.train()
    whole = {name: joined(found) for name, found in parts.items()}
    made = _Answers(agent, whole, {per: torch.cat(found) for per, found in counts.items()})
    return made.of(torch.cat(places).argsort())
