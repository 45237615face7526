"""The streams of texts that a mesh wants measured: written once more at the end, to the prompts of held out splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.graph.agreed import draws
from kdmesh.graph.sources import written_before
from kdmesh.hosts.remote import RemoteHost
from kdmesh.plugins import registry
from kdmesh.text.views import PromptView

if TYPE_CHECKING:
    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.hosts.measured_texts import Said
    from kdmesh.spec import MeshSpec, StreamSpec


def cost(spec: MeshSpec, name: str) -> int:
    """How many texts agents write to a prompt for a stream, those that it is made of counted."""
    every = [one for one in (*written_before(spec, name), name) if spec.streams[one].consensus_of is None]
    return sum(draws(spec.streams[one]) for one in every)


def measured_texts(run: RunContext) -> Work[dict[str, dict[str, Any]]]:
    """Figures of such streams by name: who writes each, how many texts that takes, and what metrics say by split.

    A stream whose writer, or one of those that it reads, was dropped is left out.
    """
    spec = run.plan.spec
    wanted = {name for name, one in spec.streams.items() if one.measured}
    every = list(dict.fromkeys(one for name in wanted for one in (*written_before(spec, name), name)))
    order = sorted(every, key=lambda name: (len(written_before(spec, name)), list(spec.streams).index(name)))
    found: dict[str, dict[str, Any]] = {name: about(spec, name) for name in spec.streams if name in wanted}
    for split in ("validation", "test") if run.tested else ("validation",):
        if split not in run.checked.streams:
            continue
        said: dict[str, Said] = {}
        for name in order:
            stream = spec.streams[name]
            made_of, writer = stream.made_of, stream.generated_by
            if writer not in run.host_of or any(other not in said for other in made_of.values()):
                continue
            read = {field: said[other] for field, other in made_of.items()}
            (said[name],) = yield from wait([run.submit(writer, RemoteHost.say, name, split, read)])
            if name in wanted:
                found[name][split] = said[name]["figures"] | {"answered": said[name]["answered"]}
    return found


def about(spec: MeshSpec, name: str) -> dict[str, Any]:
    """What a measured stream is."""
    stream = spec.streams[name]
    who = {"agent": stream.generated_by} if stream.rule is None else {"rule": stream.rule.name}
    every = [spec.streams[one] for one in (*written_before(spec, name), name)]
    agents = dict.fromkeys(one.generated_by for one in every if one.consensus_of is None)
    told = {"oracle": True} if any(_oracle(spec, one) for one in every) else {}
    return {**who, "writers": list(agents), "cost": cost(spec, name), **told}


def _oracle(spec: MeshSpec, stream: StreamSpec) -> bool:
    """Whether what is written, or chosen, depends on what the data know beside the prompt: its answer, or columns."""
    if stream.rule is not None:
        offer = registry().find("text_rules", stream.rule.name)
        settings = offer.config.model_validate(stream.rule.config)
        return "score" in offer.needs and getattr(settings, "metric", None) is not None
    assert stream.generated_by is not None
    template = stream.template or spec.agents[stream.generated_by].view.prompt
    if template is None:
        return False
    return bool(PromptView(template, "").names - {"prompt", *(stream.reads or {})})
