"""Rewards of written texts, and objectives that ask about such texts: what of it cannot be run, or would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.graph.agreed import draws
from kdmesh.graph.served import is_served
from kdmesh.offers import OF_TEXTS
from kdmesh.spec import SamplingSpec

if TYPE_CHECKING:
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry
    from kdmesh.spec import RewardRef, StreamSpec


def keys(refs: list[RewardRef] | None) -> list[str]:
    """The verifiers of a stream by the names under which their numbers stand: a second `verifier` is `verifier 2`."""
    names = [ref.name for ref in refs or ()]
    return [f"{name} {names[:at].count(name) + 1}" if name in names[:at] else name for at, name in enumerate(names)]


def refuse_rewards(plan: Plan, registry: Registry) -> None:
    """Raise MeshError for a verifier that judges no single text, and for an objective that asks what is not known."""
    for name, stream in plan.spec.streams.items():
        for number, ref in enumerate(stream.reward or ()):
            if not ref.is_import:
                _verifier(ref, registry, plan.at(f"streams.{name}.reward.{number}"))
    for edge in plan.edges:
        needs = [need for need in OF_TEXTS if need in edge.needs]
        if needs and edge.objective is not None and (problem := _problem(plan, registry, edge, needs)):
            field, what, instead = problem
            raise MeshError(what, where=f"{edge.where}.{field}", instead=instead)


def _verifier(ref: RewardRef, registry: Registry, where: str) -> None:
    offer = registry.find("metrics", ref.name, where)
    if "texts" not in offer.needs:
        fit = [one.name for one in registry.offers("metrics") if "texts" in one.needs]
        what = f"the metric {ref.name!r} is not of written texts, so it says of none how right it is"
        raise MeshError(what, where=where, instead=nearest(ref.name, fit, "metrics of texts"))
    registry.check("metrics", ref.name, ref.settings, where)


def _problem(plan: Plan, registry: Registry, edge: Edge, needs: list[str]) -> tuple[str, str, str] | None:
    """The field of a flow, what is wrong with it, and what to write instead."""
    stream, own = plan.spec.streams.get(edge.stream), edge.objective
    assert own is not None
    asks = f"objective {own.name!r} asks of each text that an agent writes "
    if stream is None or stream.prompts is None or stream.generated_by is None:
        what = f"{asks}{_said(needs[0])}, and {edge.stream!r} is not written by an agent to prompts"
        return "stream", what, "a stream with `generated_by` and `prompts`"
    if stream.mix is not None:
        what = f"{asks}{_said(needs[0])}, and some batches of {edge.stream!r} are of given texts"
        return "stream", what, "a stream without `mix`, and a flow of its own on the given texts"
    if "written" in needs and stream.rule is not None:
        what = f"{asks}{_said('written')}, and those of {edge.stream!r} are chosen by a rule"
        return "stream", what, "a stream that an agent writes itself"
    if "written" in needs and is_served(plan.spec.agents[plan.owner[stream.generated_by]].model, registry):
        what = f"{asks}{_said('written')}, and {stream.generated_by} is behind an endpoint, which does not say so"
        return "stream", what, "a stream that an agent of this mesh writes"
    if "reward" in needs and stream.reward is None:
        return "stream", f"{asks}how right it is, and nothing says so on {edge.stream!r}", (
            f"streams.{edge.stream}.reward: numeric_answer, or a function"
        )  # fmt: skip
    if "group" in needs and (problem := _group(plan, edge, stream, asks)):
        return problem
    return _drawn(plan, edge, stream, needs, asks)


def _said(need: str) -> str:
    said = {"group": "which others answer the same prompt", "reward": "how right it is"}
    return said.get(need, "how likely its writer found it" if need == "written" else "which tokens it has")


def _group(plan: Plan, edge: Edge, stream: StreamSpec, asks: str) -> tuple[str, str, str] | None:
    """All texts of a prompt stand in one batch, and there are several."""
    several, size = draws(stream), plan.train(edge.target).batch_size
    if several == 1:
        what = f"{asks}which others answer the same prompt, and one is written to each"
        return "stream", what, f"streams.{edge.stream}.sampling.samples: 4"
    if size % several:
        what = f"{asks}which others answer the same prompt, and batches of {size} divide the {several} of one"
        return "stream", what, f"batch_size: {max(1, size // several) * several}"
    return None


def _drawn(plan: Plan, edge: Edge, stream: StreamSpec, needs: list[str], asks: str) -> tuple[str, str, str] | None:
    """Its temperature is that at which texts are drawn; its writer's probabilities can differ from the reader's."""
    assert stream.generated_by is not None and edge.objective is not None
    how, name = stream.sampling or SamplingSpec(), edge.objective.name
    temperature = edge.objective.config.get("temperature", 1.0)
    if {"reward", "written"} & {*needs} and not how.greedy and temperature != how.temperature:
        what = (
            f"{name!r} is at temperature {temperature:g}, and texts of {edge.stream!r} are drawn at {how.temperature:g}"
        )
        return f"objective.{name}.temperature", what, f"temperature: {how.temperature:g} in both"
    writer, reader = plan.owner[stream.generated_by], plan.owner[edge.target]
    often = stream.refresh in (None, "step", "1 steps")
    if "written" in needs and writer == reader and writer in plan.trainable and often:
        what = (
            f"{asks}how likely its writer found it then, and {stream.generated_by} writes anew for each update: "
            "there is nothing to compare with"
        )
        return "objective", what, f"streams.{edge.stream}.refresh: 4 steps, or an objective that does not ask"
    return None
