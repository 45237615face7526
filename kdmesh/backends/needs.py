"""What hosts need of a cluster, by Ray's names of resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.spec import HostSpec

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan


class Need(NamedTuple):
    """What a host needs of the cluster."""

    cpus: float
    gpus: float
    resources: tuple[tuple[str, float], ...] = ()

    def amounts(self) -> dict[str, float]:
        """The same in Ray's names, without what is zero."""
        amounts = {"CPU": float(self.cpus), "GPU": float(self.gpus), **dict(self.resources)}
        return {resource: number for resource, number in amounts.items() if number}


def needs_of(plan: Plan) -> dict[str, Need]:
    """What each host of a plan takes."""
    return {name: _need(plan, agents) for name, agents in plan.hosts.items()}


def _need(plan: Plan, agents: list[str]) -> Need:
    """What a host asks for; else the threads of its widest agent as CPUs, and a GPU for agents on `cuda`.

    Ray chooses which one that is. Agents on `cuda:N` name theirs, and Ray, which hides none from them, counts none.
    """
    settings = [plan.train(agent) for agent in agents]
    cpus, gpus = (
        max((train.threads for train in settings), default=1),
        int(any(train.device == "cuda" for train in settings)),
    )
    placed = plan.spec.placement
    asked = placed.get(plan.host_of[agents[0]]) if agents and isinstance(placed, dict) else None
    if not isinstance(asked, HostSpec):
        return Need(cpus, gpus)
    own = (asked.cpus or cpus, gpus if asked.gpus is None else asked.gpus)
    return Need(*own, tuple(sorted(asked.resources.items())))


def listed(needs: dict[str, Need], resource: str = "CPU") -> str:
    """How much of a resource each host needs, in words."""
    return ", ".join(f"{name} {need.amounts().get(resource, 0.0):g}" for name, need in needs.items())
