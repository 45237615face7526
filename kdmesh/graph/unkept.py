"""Whose answers no store can keep, as far as a file tells: what another run could not use, or must not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.graph.served import is_served

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

SEES_ANOTHER = "it sees what another agent says, in the place of samples"


class Unkept(NamedTuple):
    """Why an agent's answers are not kept, where in the file that is said, and what to write instead."""

    why: str
    where: str
    instead: str

    def told(self, agent: str) -> str:
        """As a line of a check."""
        return f"store: what {agent} says is not kept: {self.why}; to keep it: {self.instead}"


def frozen(plan: Plan) -> list[str]:
    """The agents whose weights never change."""
    return [name for name in plan.spec.agents if plan.spec.agents[plan.owner[name]].update == "frozen"]


def unkept(plan: Plan, registry: Registry) -> dict[str, Unkept]:
    """Of frozen agents that are asked, whose answers are computed anew in every run, all or some of them."""
    found: dict[str, Unkept] = {}
    for name in frozen(plan):
        if is_served(plan.spec.agents[plan.owner[name]].model, registry):
            continue  # its answers are kept as they come
        for edge in (edge for edge in plan.edges if edge.source == name):
            if (why := unkept_on(plan, registry, edge)) is not None:
                found[name] = why
                break
    return found


def unkept_on(plan: Plan, registry: Registry, edge: Edge) -> Unkept | None:
    """Why nothing is kept of what an agent says on one flow; None where it is, if the agent no longer changes."""
    name = edge.source
    stream, view = plan.spec.streams.get(edge.stream), plan.spec.agents[name].view
    if name in plan.inputs:
        return Unkept(SEES_ANOTHER, plan.inputs[name].where, "samples as its input")
    if stream is not None and stream.private:
        return Unkept(of_private(edge.stream), f"streams.{edge.stream}.private", "a stream that is not private")
    if stream is not None and stream.generated_by is not None:
        return Unkept(of_written(edge.stream), f"streams.{edge.stream}.generated_by", "a stream of samples that stay")
    if edge.mode == "train":
        return Unkept("it answers in train mode", f"{edge.where}.mode", "mode: eval")
    if edge.stale == "snapshot":
        return Unkept("its old weights answer anew in each step", f"{edge.where}.stale", "stale: publish")
    if name in plan.mixed and edge.live:
        ref = plan.mixed[name].name
        return Unkept(f"{ref} mixes its batches anew in each step", f"agents.{name}.view", f"a view without {ref}")
    if view.augment and view.draws is None:
        return Unkept("each epoch it sees new views of all samples", f"agents.{name}.view", "view: {draws: 4}")
    if edge.derived is not None and "generator" in registry.find("signals", edge.derived.name).needs:
        return Unkept(f"the signal {edge.derived.name} draws", f"{edge.where}.signal", "a signal that does not draw")
    return None


def of_private(stream: str) -> str:
    """Why nothing is kept of what is said of private samples."""
    return f"what it says of private samples ({stream}) leaves no trace"


def of_written(stream: str) -> str:
    """Why nothing is kept of samples that an agent's host writes."""
    return f"the samples of {stream} are written anew, and none is met twice"
