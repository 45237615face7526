"""Still forwards of texts: samples differ in length, and so do the rows that a model gives for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.signals.lazy import Lazy, again, apart
from kdmesh.streams.tokens import Encoded, ranges, starts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.agents.agent import Agent, Value
    from kdmesh.agents.feed import Lane
    from kdmesh.agents.lesson import Lesson
    from kdmesh.streams.tokens import Tokens

ROWS = 8  # of a still forward on a CPU: more gain it little there, and rows that repeat a sample are for nothing
STEPS = 16  # that an agent which does not change answers together
TOKENS = 2**13  # of these steps: what is remembered of them stays small


def still(agent: Agent, x: Tokens | Encoded, fixed: int, names: tuple[str, ...]) -> Value:
    """Forward in eval mode without gradient, each sample in a shape that depends on its own length alone."""
    return _answers(agent, x, fixed, names, [len(x)])[0]


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
        return lane.ahead(lesson.position(step, lane), size, drop, min(STEPS, last - step))

    return Ahead(agent, lane.x, lesson.host.fixed, names, batches)


class Ahead:
    """The answers of an agent that does not change, for the batches of a few steps at once.

    Each sample's shape is its own, so these are the answers of one step after the other, bit for bit; but batches whose
    samples differ in length fill the fixed shapes together. ``batches(step)``: positions in ``x``, of that step first.
    """

    def __init__(
        self, agent: Agent, x: Encoded, fixed: int, names: tuple[str, ...], batches: Callable[[int], list[Tensor]]
    ) -> None:
        self._agent, self._x, self._fixed, self._names, self._batches = agent, x, fixed, names, batches
        self._lengths = x.lengths
        self._known: dict[int, Value] = {}

    def __call__(self, step: int) -> Value:
        """The logits and named values of a step's batch."""
        if step not in self._known:
            together: list[Tensor] = []
            tokens = 0
            for at in self._batches(step):
                tokens += int(self._lengths[at].sum())
                if together and tokens > TOKENS:
                    break
                together.append(at)
            x, sizes = self._x.select(torch.cat(together)), [len(at) for at in together]
            self._known = dict(enumerate(_answers(self._agent, x, self._fixed, self._names, sizes), step))
        return self._known.pop(step)


def _answers(agent: Agent, x: Tokens | Encoded, fixed: int, names: tuple[str, ...], sizes: list[int]) -> list[Value]:
    """The same for samples that stand in groups of these sizes, group by group."""
    training = agent.module.training
    if training:
        agent.module.eval()
    parts: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in ("", *names)}
    kinds: dict[str, Tensor | Lazy] = {}  # a value of each name
    counts: dict[str, list[Tensor]] = {"samples": [], "units": [], "tokens": []}
    places: list[Tensor] = []
    rows = min(fixed, ROWS) if x.device.type == "cpu" else fixed
    with torch.no_grad():
        for at, tokens in x.parts(rows):
            own = {"samples": torch.ones_like(tokens.counts), "units": tokens.counts, "tokens": tokens.lengths}
            logits, values = agent.forward(tokens, names)
            for name, value in {**values, "": logits}.items():
                kinds[name], real = value, int(own[agent.per(name)][: len(at)].sum())
                parts[name].append(tuple(part[:real] for part in apart(value)))
            for per, count in own.items():
                counts[per].append(count[: len(at)])
            places.append(at)
    if training:
        agent.module.train()
    back = torch.cat(places).argsort()
    wholes = {name: [torch.cat(same) for same in zip(*found, strict=True)] for name, found in parts.items()}
    known = {per: torch.cat(found) for per, found in counts.items()}
    starts = {per: starts_of(found)[:-1] for per, found in known.items()}
    answers: list[Value] = []
    for group in back.split(sizes):
        orders = {per: ranges(starts[per][group], known[per][group]) for per in known}
        found = {}
        for name, whole in wholes.items():
            order = orders[agent.per(name)]
            found[name] = again(kinds[name], [part[order] for part in whole])
        answers.append((found.pop(""), found))
    return answers
