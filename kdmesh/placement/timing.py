"""Time a few real steps of an agent on a clone, with few torch threads and with all. A run stays bit-equal."""

from __future__ import annotations

import random
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy, mse_loss

from kdmesh.graph.served import served
from kdmesh.hosts.agent import Agent
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry
from kdmesh.signals.lazy import dense
from kdmesh.streams.seeds import mix
from kdmesh.streams.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan

BUDGET = 2.0  # seconds in which everything is measured, though each thing at least once after a warm-up
REPEATS = 20  # steps in each of so many turns, at most; the median of all is taken
TURNS = 3


class Timing(NamedTuple):
    """Seconds of one batch: forward in eval mode, forward in training, backward, update."""

    inference: float
    forward: float = 0.0
    backward: float = 0.0
    update: float = 0.0


Timings = dict[str, tuple[Timing, Timing]]  # by agent: with its few threads, and with all


def measure(plan: Plan, found: Checked, modules: dict[str, nn.Module], few: dict[str, int], every: int) -> Timings:
    """Time every agent that answers here, those alike once: with ``few`` threads, of each, and with ``every``."""
    like: dict[str, list[str]] = {}
    elsewhere = served(plan, registry())  # behind endpoints: an answer costs, and is not asked for here
    for agent in (one for one in plan.spec.agents if one not in elsewhere):
        like.setdefault(_likeness(plan, agent, modules, few[agent]), []).append(agent)
    counts = sum(len({few[agents[0]], every}) for agents in like.values())
    timings: Timings = dict.fromkeys(elsewhere, (Timing(0.0), Timing(0.0)))
    with _undisturbed():
        for agents in like.values():
            timed = _time(plan, found, modules, agents[0], (few[agents[0]], every), BUDGET / max(1, counts))
            timings.update(dict.fromkeys(agents, timed))
    return timings


def trains(plan: Plan, agent: str) -> bool:
    """Whether gradient descent moves an agent's weights."""
    return plan.spec.agents[plan.owner[agent]].learns


def _likeness(plan: Plan, agent: str, modules: dict[str, nn.Module], few: int) -> str:
    """What the time depends on, as text."""
    owner, spec = plan.owner[agent], plan.spec.agents[agent]
    model = owner if owner in modules else plan.spec.agents[owner].model
    kind = plan.train(agent).model_dump(
        include={"batch_size", "forward_size", "optimizer", "clip", "precision", "device"}
    )
    return f"{model!r} {spec.view!r} {spec.exit} {kind} {few} {trains(plan, agent)}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the generators and the number of threads as they were."""
    threads, state = torch.get_num_threads(), random.getstate()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(state)


def _time(
    plan: Plan, found: Checked, modules: dict[str, nn.Module], agent: str, counts: tuple[int, int], budget: float
) -> tuple[Timing, Timing]:
    clone, x, y, ids = _clone(plan, found, modules, agent)
    learns, left = trains(plan, agent), dict.fromkeys(counts, budget)
    taken: dict[int, list[Timing]] = {count: [] for count in counts}
    for count in [*taken] * TURNS:  # in turns: what else the machine does is spread evenly
        torch.set_num_threads(count)
        steps, start = 0, perf_counter()
        while steps < REPEATS and (left[count] > perf_counter() - start or not taken[count]):
            taken[count].append(_step(clone, x, y, ids, learns))
            steps += 1
        left[count] -= perf_counter() - start
    few, every = (taken[count][len(taken[count]) > 1 :] for count in counts)  # the first was a warm-up
    return _median(few), _median(every)


def _median(timings: list[Timing]) -> Timing:
    return Timing(*(median(part) for part in zip(*timings, strict=True)))


def _clone(plan: Plan, found: Checked, modules: dict[str, nn.Module], agent: str) -> tuple[Agent, Any, Tensor, Tensor]:
    """An agent with weights of its own, and a real batch: samples, labels, ids."""
    owner, settings, spec = plan.owner[agent], plan.train(agent), plan.spec.agents[agent]
    table, offered = found.table, registry()
    module = build(plan, owner, found.reading, offered, modules, settings.device)
    weights = LocalWeights(owner, module, settings.model_copy(update={"schedule": None}))  # it may end before we do
    if trains(plan, agent):
        weights.start(1_000_000)
    augment = [
        offered.find("views", ref.name).make(ref.config, mix(0, "view", str(number)))
        for number, ref in enumerate(spec.view.augment)
    ]
    mixing = augment.pop() if agent in plan.mixed else None  # it is the last
    view = View(augment, spec.view.draws) if augment else None
    clone = Agent(agent, weights, view, spec.taps, exit=spec.exit, mixing=mixing)
    ids = _rows(plan, found, agent)[: settings.batch_size]
    x = found.reading.samples(agent, ids).to(clone.device)
    y = table.y[ids] if table.y is not None else torch.zeros(len(ids), dtype=torch.int64)
    if not isinstance(x, torch.Tensor) and plan.task_of(agent).rows == "units":
        y = x.targets
    if y.dim() == 1:  # any class takes as long, of samples without one too
        y = y.clamp(min=0) if spec.labels is None else y % len(spec.labels)
    return clone, x, y.to(clone.device), ids


def _rows(plan: Plan, found: Checked, agent: str) -> Tensor:
    """Samples that an agent sees."""
    for edge in plan.edges:
        if agent in (edge.source, edge.target):
            stream = found.streams[edge.stream]
            if stream.sees(agent):
                return stream.rows_for(agent)
    return torch.arange(len(found.table))


def _step(clone: Agent, x: Any, y: Tensor, ids: Tensor, learns: bool) -> Timing:
    """One forward in eval mode and, for what learns, a training step; the seconds of each part."""
    marks = [_now(clone)]
    clone.module.eval()
    clone.inference(_seen(clone, x, ids), clone.weights.settings.forward_size or len(x))
    marks.append(_now(clone))
    if not learns:
        return Timing(marks[1] - marks[0])
    clone.weights.train()
    logits, _ = clone.forward(_seen(clone, x, ids))
    marks.append(_now(clone))
    clone.weights.zero()
    outputs = dense(logits).float()
    loss = cross_entropy(outputs, y) if y.dim() == 1 else mse_loss(outputs, y.to(outputs.dtype))
    loss.item()  # a run reads its losses too
    loss.backward()
    marks.append(_now(clone))
    clone.weights.step()
    marks.append(_now(clone))
    return Timing(*(after - before for before, after in pairwise(marks)))


def _seen(clone: Agent, x: Any, ids: Tensor) -> Any:
    """A batch as the agent sees it in a step."""
    seen = clone.see(x, ids, 0)
    return seen if clone.mixing is None else clone.mixing(seen, ids.to(seen.device), 0).x


def _now(clone: Agent) -> float:
    if clone.device.type == "cuda":
        torch.cuda.synchronize(clone.device)
    return perf_counter()
