"""A learning-rate range test: an agent trains for a few updates while its rate rises, and its losses are looked at.

L. N. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3. The rate rises by equal
factors. Losses are smoothed by a mean that forgets (0.9, without its bias towards 0); the test ends where that is more
than four times its least value, or where a loss is not finite. Only training losses are looked at, of one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.events import Note, Trained
from kdmesh.engine.launch import run_once
from kdmesh.errors import MeshError, RunFailed, nearest
from kdmesh.graph.planner import make_plan
from kdmesh.graph.program import Train
from kdmesh.plugins import registry
from kdmesh.spec import TrainOverride
from kdmesh.spec.base import OptimizerRef, ScheduleRef

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.contracts.events import Event
    from kdmesh.engine.events import Listener
    from kdmesh.engine.request import Request
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.spec import MeshSpec, TrainSpec

KEPT = 0.9  # of the smoothed loss, at each update
DIVERGED = 4.0  # times its least value
FEWEST, MOST_UPDATES = 20, 100_000
FLAT = 0.02  # a loss that falls by less, of its first value, does not fall
UNWATCHED: dict[str, Any] = {"early_stopping": None, "keep_best": None, "evaluate_every": None}


@dataclass(frozen=True)
class Rates:
    """What a range test found.

    Attributes:
        agent: who was trained.
        rates: the rate of each update, rising.
        losses: the training loss on each update's batches, before it was made: what its flows add up to.
        smoothed: these, smoothed, in which the following were found.
        fastest: the rate at which the loss falls fastest, by the logarithm of the rate; None where it does not fall.
        lowest: the rate at which it is lowest, with which training seldom stays stable; None where it does not fall.
        diverged: whether the loss rose to four times its least value, or was not finite: the range was wide enough.
    """

    agent: str
    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    fastest: float | None
    lowest: float | None
    diverged: bool


def find_rate(request: Request, agent: str | None, low: float, high: float, updates: int) -> Rates:
    """Run the test. Everything that ``agent`` waits for is trained before, as the mesh says; nothing is written.

    ``agent``: None where one alone is trained last. MeshError for what cannot be tested.
    """
    _bounds(low, high, updates)
    plan = make_plan(request.spec, registry())
    for party in plan.withholding:
        what = f"{party} has a privacy budget, and losses at each rate are made of its samples, without noise"
        raise MeshError(what, where=f"parties.{party}.privacy", instead="a mesh of public samples")
    name = _chosen(plan, agent)
    settings = plan.train(name)
    gamma = (high / low) ** (1 / (updates - 1))
    spec = _rising(plan, name, low, gamma, updates * settings.accumulate)
    points: dict[int, float | None] = {}
    stage = _stage(plan, name).name

    def hear(event: Event) -> None:
        if isinstance(event, Trained) and event.stage == stage and name in event.losses:
            points[event.step // settings.accumulate - 1] = event.losses[name]

    asked = replace(
        request, spec=spec, out=None, tested=False, report=False, every=settings.accumulate,
        listeners=(*map(_Heard, request.listeners), hear),
    )  # fmt: skip
    broke = False
    try:
        run_once(asked)
    except RunFailed:
        if len(points) < FEWEST // 2:  # it is no loss that grew
            raise
        broke = True
    losses = [points[update] for update in sorted(points)]
    return judged(name, [low * gamma**update for update in sorted(points)], losses, broke)


class _Heard:
    """A listener that is not told what was said of the mesh as it was checked: that is the one with the rising rate."""

    def __init__(self, listener: Listener) -> None:
        self.close = getattr(listener, "close", lambda: None)
        self._listener = listener

    def __call__(self, event: Event) -> None:
        """Tell it."""
        if not (isinstance(event, Note) and event.checked):
            self._listener(event)


def judged(agent: str, rates: list[float], losses: Iterable[float | None], broke: bool = False) -> Rates:
    """What losses at rising rates say; None: one that is not finite. ``broke``: the next one was not."""
    kept: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, broke
    for number, loss in enumerate(losses, 1):
        if loss is None or not math.isfinite(loss):
            diverged = True
            break
        mean = KEPT * mean + (1 - KEPT) * loss
        kept.append(loss)
        smoothed.append(mean / (1 - KEPT**number))
        if smoothed[-1] > DIVERGED * min(smoothed) > 0:
            diverged = True
            break
    rates = rates[: len(kept)]
    least = min(range(len(smoothed)), key=smoothed.__getitem__, default=0)
    if not smoothed or least < 2 or smoothed[0] - smoothed[least] < FLAT * abs(smoothed[0]):
        return Rates(agent, rates, kept, smoothed, None, None, diverged)
    falls = [smoothed[at + 1] - smoothed[at - 1] for at in range(1, least)]
    fastest = 1 + min(range(len(falls)), key=falls.__getitem__)
    return Rates(agent, rates, kept, smoothed, rates[fastest], rates[least], diverged)


def _bounds(low: float, high: float, updates: int) -> None:
    """Refuse a range that is none."""
    if not 0 < low < high < math.inf:
        what = f"from {low:g} to {high:g} no rate rises"
        raise MeshError(what, where="--low, --high", instead="two rates above 0, the lower first")
    if not FEWEST <= updates <= MOST_UPDATES:
        raise MeshError(f"{updates} updates", where="--updates", instead=f"from {FEWEST} to {MOST_UPDATES:,}")


def _chosen(plan: Plan, agent: str | None) -> str:
    """Whose rate is looked for. MeshError where nobody is named and several are trained last, or who has no rate."""
    trained = [name for name in plan.spec.agents if name in plan.trainable and plan.owner[name] == name]
    if agent is None:
        waited = {name for stage in plan.stages for name in stage.waits}
        last = [name for name in trained if _stage(plan, name).name not in waited]
        if len(last) != 1:
            found = ", ".join(last or trained) or "nobody"
            raise MeshError(f"who is meant is not clear: {found} is trained", where="--agent", instead="one of them")
        agent = last[0]
    if agent not in plan.spec.agents:
        raise MeshError(f"no agent is called {agent!r}", where="--agent", instead=nearest(agent, trained, "agents"))
    if agent not in trained:
        what = f"{agent} has no rate: it is not trained by gradients of its own"
        raise MeshError(what, where="--agent", instead=", ".join(trained) or "a mesh that trains somebody")
    body = _stage(plan, agent).program.body
    if len(body) != 1 or not isinstance(body[0], Train):
        what = f"{agent} trains in rounds, or in several lessons"
        raise MeshError(what, where="program", instead="a mesh with one lesson, without a program")
    return agent


def _stage(plan: Plan, agent: str) -> Stage:
    """The stage that trains an agent."""
    found = plan.stage_of(agent)
    assert found is not None
    return found


def _rising(plan: Plan, name: str, low: float, gamma: float, steps: int) -> MeshSpec:
    """The mesh in which an agent's rate rises over so many steps; who trains beside it keeps its own, and whatever
    nobody waits for is left at one step.
    """
    spec, stage = plan.spec, _stage(plan, name)
    needed, before = {stage.name}, {stage.name}
    while before:
        before = {other for one in plan.stages if one.name in before for other in one.waits} - needed
        needed |= before
    agents = dict(spec.agents)
    for owner in plan.trainable:
        if owner not in agents:
            continue
        settings = plan.train(owner)
        where = _stage(plan, owner).name
        if where == stage.name:
            settings = settings.model_copy(update={"steps": steps, **UNWATCHED})
        elif where not in needed:
            settings = settings.model_copy(update={"steps": 1, **UNWATCHED})
        if owner == name:
            optimizer = settings.optimizer
            rising: dict[str, Any] = {
                "optimizer": OptimizerRef(name=optimizer.name, config={**optimizer.config, "lr": low}),
                "schedule": ScheduleRef(name="ExponentialLR", config={"gamma": gamma}),
            }
            settings = settings.model_copy(update=rising)
        agents[owner] = agents[owner].model_copy(update={"train": _own(settings)})
    program = [item for item in spec.program if not set(item.of or ()) & set(stage.agents)]
    plain = spec.train.model_copy(update=UNWATCHED)
    return spec.model_copy(update={"agents": agents, "train": plain, "program": program})


def _own(settings: TrainSpec) -> TrainOverride:
    """All of an agent's settings as its own."""
    own = {name: getattr(settings, name) for name in TrainOverride.model_fields}
    return TrainOverride.model_construct(set(own), **own)
