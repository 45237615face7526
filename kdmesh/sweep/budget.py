"""Smaller budgets: a mesh trained for a share of its epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec, ProgramItem


def shortened(spec: MeshSpec, part: int) -> MeshSpec:
    """A mesh in its long form with every length of training, epochs or steps, divided by ``part``; at least 1 each.

    Repetitions in a program stay as many.
    """
    if part == 1:
        return spec

    def less(owner: Any) -> dict[str, int]:
        lengths = ((name, getattr(owner, name)) for name in ("epochs", "steps"))
        return {name: max(1, length // part) for name, length in lengths if length is not None}

    def line(item: ProgramItem) -> ProgramItem:
        inner = {} if item.do is None else {"do": [line(one) for one in item.do]}
        return item.model_copy(update={**less(item), **inner})

    agents = {
        name: agent.model_copy(update={"train": agent.train.model_copy(update=less(agent.train))})
        for name, agent in spec.agents.items()
    }
    return spec.model_copy(
        update={
            "train": spec.train.model_copy(update=less(spec.train)),
            "agents": agents,
            "program": [line(item) for item in spec.program],
        }
    )


def shortest(spec: MeshSpec) -> int:
    """The shortest length of training in a mesh's long form: what a budget can be divided by at most."""

    def counted(owner: Any) -> list[int]:
        steps, epochs = owner.steps, owner.epochs
        return [length] if (length := steps if steps is not None else epochs) is not None else []

    def lines(items: list[ProgramItem]) -> list[int]:
        return [length for item in items for length in (*counted(item), *lines(item.do or []))]

    agents = [length for agent in spec.agents.values() for length in counted(agent.train)]
    return min([*counted(spec.train), *agents, *lines(spec.program)])


def rungs(points: int, eta: int, longest: int) -> list[tuple[int, int]]:
    """How many points go into each rung, and by what its budget is divided; the last one has the whole.

    ``longest``: the largest number that a budget can be divided by.

    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.
    """
    steps = 0
    while eta > 1 and points // eta ** (steps + 1) >= 1 and eta ** (steps + 1) <= longest:
        steps += 1
    return [(max(1, points // eta**rung), eta ** (steps - rung)) for rung in range(steps + 1)]
