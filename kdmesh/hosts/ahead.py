"""Answers for the batches of several steps at once, of an agent that does not change."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.hosts.loader import ShardView
from kdmesh.hosts.ragged import Answers, answers, rows_of
from kdmesh.streams.tokens import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.loader import BatchSource
    from kdmesh.hosts.ragged import Value

STEPS = 16  # that an agent which does not change answers together; as many more may fill up its shapes
TOKENS = 2**13  # of these steps: what is remembered of them stays small


def answers_ahead(inputs: Inputs, agent: Agent, shard: BatchSource, names: tuple[str, ...]) -> Ahead | None:
    """What answers for several steps of a phase at once; None where the agent may change, or sees no texts as such.

    Nor where it makes wide logits, or a signal of such: those of several steps would fill memory.
    """
    plan = inputs.host.plan
    moves = plan.owner[agent.name] in plan.trainable or agent.weights.ema is not None
    materialised = not getattr(agent.module, "projects", False) or not all(map(agent.layer, names))
    wide = materialised and plan.task_of(agent.name).outputs == "vocabulary"
    if moves or wide or agent.view is not None or not isinstance(shard, ShardView) or not isinstance(shard.x, Encoded):
        return None
    size, drop, last = inputs.settings.batch_size, inputs.settings.drop_last, max(inputs.ends.values())

    def batches(step: int) -> list[Tensor]:
        return shard.ahead(inputs.position(step, shard), size, drop, min(2 * STEPS, last - step))

    return Ahead(agent, shard.x, inputs.host.forward_size(agent.name), names, batches)


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
        self._rows, self._lengths = rows_of(x, fixed), x.lengths.cpu()
        self._shapes = x.shapes.cpu().unique(dim=0, return_inverse=True)[1]  # a number for each
        self._steps: dict[int, list[int]] = {}  # positions of the steps that are answered
        self._places: dict[int, int] = {}  # of positions among the answers
        self._answers: Answers | None = None

    def state(self) -> dict[str, Any]:
        """What is answered, by positions alone, as JSON holds it."""
        steps = {str(step): batch for step, batch in self._steps.items()}
        return {"steps": steps, "places": list(self._places)}

    def restore(self, known: dict[str, Any]) -> None:
        """Answer what was answered when this was its :meth:`state`. These forwards were counted then."""
        if not known["places"]:
            return
        made = self._agent.forwards
        self._answers = answers(self._agent, self._x.select(torch.tensor(known["places"])), self._rows, self._names)
        self._agent.forwards = made
        self._steps = {int(step): batch for step, batch in known["steps"].items()}
        self._places = {at: place for place, at in enumerate(known["places"])}

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
        parts = [self._answers.of(torch.tensor([self._places[at] for at in kept]))] if self._answers and kept else []
        if chosen:
            parts.append(answers(self._agent, self._x.select(torch.tensor(chosen)), self._rows, self._names))
        self._answers = Answers.joined(parts)
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
        chosen, shapes = list(now), self._shapes[now].tolist()
        room = {shape: -number % self._rows for shape, number in Counter(shapes).items()}
        for at, shape in zip(later, self._shapes[later].tolist(), strict=True):
            if room.get(shape, 0):
                room[shape] -= 1
                chosen.append(at)
        return chosen


def _positions(batches: list[list[int]]) -> dict[int, None]:
    """Every position once, in order."""
    return dict.fromkeys(at for batch in batches for at in batch)
