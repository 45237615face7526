"""Canaries: how much more likely an agent finds those that were planted than others that could have been.

For each its exposure, among made-up candidates with its own number; of all together, by those that are in and out, a
lower bound on epsilon. A quarter of them, those with the greatest exposure, are guessed to be in, and a quarter to be
out: how many guesses is fixed before anything is seen, as the bound asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdmesh.audits import one_run
from kdmesh.audits.exposure import Exposure, exposure, mean_of, p_value
from kdmesh.hosts.planting import Making
from kdmesh.inference.auditing.losses import of_samples

if TYPE_CHECKING:
    from kdmesh.inference.auditing.opened import Opened
    from kdmesh.inference.trained import Trained

GUESSED = 0.25
"""The share of canaries that is guessed to be in, and that which is guessed to be out."""


@dataclass(frozen=True)
class Exposed:
    """``inside`` and ``outside``: exposures of canaries that are in, and out; ``mean``: of those that are in, in bits,
    with its interval of 95%; ``p``: how likely canaries that nobody learned are as much exposed. ``guesses``,
    ``right``: of the audit in one run; ``epsilon``: what they refute, and ``most`` what so many could refute.
    ``reached``: by whom canaries can have come to the agent."""

    agent: str
    reached: list[str]
    inside: dict[int, Exposure]
    outside: dict[int, Exposure]
    mean: tuple[float, float, float]
    mean_outside: tuple[float, float, float]
    p: float
    guesses: int
    right: int
    epsilon: float
    most: float
    delta: float


def exposed(
    opened: Opened, agent: str, trained: Trained, candidates: int, delta: float, draw: int = 0
) -> Exposed | None:
    """What an agent tells of canaries; None where the run has none. ``draw``: seeds the candidates."""
    planted, data = opened.table.planted, opened.plan.spec.data
    if planted is None or data is None:
        return None
    making = Making(opened.table, data)
    own = of_samples(trained, [one.x for one in planted.canaries], [one.label for one in planted.canaries]).sums
    others = [one for canary in planted.canaries for one in making.others(canary.number, candidates, draw)]
    losses = of_samples(trained, [x for x, _, _ in others], [label for _, label, _ in others]).sums
    losses = losses.reshape(len(planted.canaries), candidates)
    found = {one.number: exposure(float(own[one.number]), losses[one.number].numpy()) for one in planted.canaries}
    return _together(opened, agent, found, delta)


def _together(opened: Opened, agent: str, found: dict[int, Exposure], delta: float) -> Exposed:
    planted = opened.table.planted
    assert planted is not None
    inside = {one.number: found[one.number] for one in planted.canaries if one.inside}
    outside = {one.number: found[one.number] for one in planted.canaries if not one.inside}
    each = max(1, int(GUESSED * len(found)))
    bits = np.array([found[one.number].bits for one in planted.canaries])
    truth = np.array([one.inside for one in planted.canaries])
    order = np.argsort(-bits, kind="stable")
    right = int(truth[order[:each]].sum() + (~truth[order[-each:]]).sum())
    return Exposed(
        agent, opened.reached(agent), inside, outside, mean_of([*inside.values()]), mean_of([*outside.values()]),
        p_value([*inside.values()]), 2 * each, right, one_run.epsilon(len(found), 2 * each, right, delta),
        one_run.epsilon(len(found), 2 * each, 2 * each, delta), delta,
    )  # fmt: skip
