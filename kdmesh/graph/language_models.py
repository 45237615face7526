"""Agents that only write texts, in a mesh of another task: language models, whatever the others answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.edges import LABELS

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.offers import TaskOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import MeshSpec

ANSWERS = "vocabulary"
"""The outputs of a task whose models write texts."""


def writing_task(registry: Registry) -> TaskOffer:
    """The task of whoever writes texts: the first on offer whose answers are tokens."""
    found: TaskOffer = next(one for one in registry.offers("tasks") if one.outputs == ANSWERS)
    return found


def language_models(spec: MeshSpec, task: TaskOffer, registry: Registry) -> frozenset[str]:
    """The agents that write texts, or judge them token by token, where the mesh's ``task`` asks for something else."""
    if task.outputs == ANSWERS:
        return frozenset()
    found = set()
    for stream in spec.streams.values():
        if stream.prompts is None or stream.generated_by is None:
            continue
        found.add(stream.generated_by)
        for ref in stream.keep or ():
            if not ref.is_import and ref.name in registry.names("filters"):
                found.update(ref.agents if "loss" in registry.find("filters", ref.name).needs else ())
    return frozenset(found)


def refuse_language_models(plan: Plan) -> None:
    """Raise MeshError for an agent that only writes and is to teach, to be taught, or to share what it is made of."""
    for name, owner in plan.owner.items():
        if (name in plan.language_models) != (owner in plan.language_models):
            writer = name if name in plan.language_models else owner
            what = f"{writer} writes texts, and the weights of {owner} are of both"
            instead = "weights of its own for each: a language model has other outputs"
            raise MeshError(what, where=plan.at(f"agents.{name}.weights_of"), instead=instead)
    for edge in plan.edges:
        for name in {edge.source, edge.target} & plan.language_models:
            if name == edge.source or edge.source != LABELS:
                raise MeshError(
                    f"{name} only writes texts: its outputs are tokens, and those of task {plan.task.name} are others",
                    where=edge.where,
                    instead=f"a flow without {name}, on the stream that it writes; or one from labels, to train it",
                )
            stream = plan.spec.streams.get(edge.stream)
            if stream is not None and stream.generated_by is not None:
                what = f"{name} only writes texts, and would learn what an agent writes"
                raise MeshError(what, where=f"{edge.where}.stream", instead="a stream of given texts")
    for name in plan.language_models:
        _refuse_agent(plan, name)


def needed(plan: Plan, agent: str) -> str:
    """For what a language model is needed in a mesh of another task, to say of a model that is none; "" where not."""
    streams = plan.spec.streams.items() if agent in plan.language_models else ()
    return next((f"; {agent} writes the texts of {name!r}" for name, one in streams if one.generated_by == agent), "")


def _refuse_agent(plan: Plan, name: str) -> None:
    """Settings of an agent that is measured, which one that only writes is not."""
    own, where = plan.spec.agents[name], plan.at(f"agents.{name}")
    for field in ("early_stopping", "keep_best", "evaluate_every"):
        if getattr(own.train, field) is not None:
            what = f"{name} only writes texts and is not measured, so that this has no effect"
            raise MeshError(what, where=f"{where}.train.{field}", instead="leave it out")
    if own.labels is not None:
        what = "the outputs of a language model are its tokens"
        raise MeshError(what, where=f"{where}.labels", instead="leave `labels` out")
