"""How many steps agents make that train privately, and what these cost: known before any is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.checks.budget import phase_steps, trained
from kdmesh.graph.private_training import mechanism, noised, party_of

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.privacy.accounting import Gaussian
    from kdmesh.privacy.mechanisms.dp_sgd import DPSGD


class Private(NamedTuple):
    """An agent's steps on one private stream, of so many samples, at most."""

    agent: str
    party: str
    stream: str
    samples: int
    steps: int
    mechanism: DPSGD

    @property
    def cost(self) -> Gaussian:
        """What all of them cost."""
        return self.mechanism.costs(self.steps)


def private_steps(plan: Plan, found: Checked) -> list[Private]:
    """By agent that trains privately, and its private stream."""
    made = []
    for agent in plan.private_agents:
        for stream in sorted(noised(plan, agent)):
            samples = len(found.streams[stream].rows_for(agent))
            steps = _steps(plan, found, agent, stream)
            how = mechanism(plan, agent, samples)
            made.append(Private(agent, party_of(plan, agent), stream, samples, steps, how))
    return made


def _steps(plan: Plan, found: Checked, agent: str, stream: str) -> int:
    total = 0
    for stage in plan.stages:
        for line, count in trained(stage.program.body):
            if any(edge.target == agent and edge.stream == stream for edge in stage.phases[line.key].edges):
                total += count * phase_steps(plan, found, stage, line).get(plan.owner[agent], 0)
    return total
