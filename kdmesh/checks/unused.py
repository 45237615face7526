"""What a mesh says that has no effect on these data and models: refused where it is asked for, else told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.checks.budget import lengths
from kdmesh.errors import MeshError
from kdmesh.graph.sources import below
from kdmesh.graph.unrun import matched
from kdmesh.plugins import registry
from kdmesh.spec import DataSpec, Ramp, TextSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan

WHOLE = ("stratify", "validation", "transfer", "seed")
"""Fields that a mesh has written out whose every default is."""


def stratified(plan: Plan, found: Checked) -> None:
    """Raise MeshError where classes are not to keep their shares, and there are none; note it where they are to."""
    data = plan.spec.data
    if data is None or found.table.strata is not None:
        return
    what = "classes keep their shares in splits, and these data have none"
    if data.stratify != DataSpec.model_fields["stratify"].default:
        raise MeshError(f"{what}, so that this has no effect", where="data.stratify", instead="leave it out")
    if "stratify" in data.model_fields_set and not data.model_fields_set.issuperset(WHOLE):
        found.notes.append(f"data.stratify has no effect: {what}")


def notes(plan: Plan, found: Checked) -> Iterator[str]:
    """What has no effect here, a line each."""
    yield from _streams(plan, found)
    yield from _signals(plan, found)
    yield from _ramps(plan, found)
    yield from _texts(plan, found)


def averaged(plan: Plan, found: Checked, agent: str, module: nn.Module) -> None:
    """Note that the buffers of an average are to follow in their own way, and its model has none that could."""
    ema = plan.spec.agents[agent].ema
    usual = None if ema is None else type(ema).model_fields["buffers"].default
    if ema is not None and ema.buffers != usual and not any(one.is_floating_point() for one in module.buffers()):
        where = plan.at(f"agents.{agent}")
        found.notes.append(f"{where}.update.ema: `buffers: {ema.buffers}` has no effect: its model has none to average")


def _streams(plan: Plan, found: Checked) -> Iterator[str]:
    """Streams that are what they are made of, and a split that nobody reads."""
    used = {edge.stream for edge in plan.edges}
    used |= {name for stream in list(used) for name in below(plan.spec, stream)}
    if "transfer" in found.streams and "transfer" not in used:
        count = len(found.streams["transfer"].rows)
        yield f"data.transfer: no flow is on this split, so that its {count:,} samples teach nobody"
    for name, spec in plan.spec.streams.items():
        own, base = found.streams[name], found.streams[spec.prompts or spec.of]
        where = plan.at(f"streams.{name}")
        narrowed = [field for field in ("size", "only", "without") if getattr(spec, field) is not None]
        if narrowed and len(own.rows) == len(base.rows):
            yield f"{where}.{narrowed[0]}: it keeps all {len(own.rows):,} samples of {spec.of!r}, so it has no effect"
        if not spec.labels and not base.labelled:
            yield f"{where}.labels: {spec.of!r} has no labels that could be hidden, so it has no effect"
        if spec.private and base.private:
            yield f"{where}.private: {spec.of!r} is private already, so it has no effect"
        if spec.shards is not None and len(spec.shards.of) == 1 and len(own.rows) == len(base.rows):
            yield f"{where}.shards: {spec.shards.of[0]} alone owns all {len(own.rows):,} samples: nothing is divided"


def _signals(plan: Plan, found: Checked) -> Iterator[str]:
    """Signals that leave nothing out of what their sources say."""
    for edge in plan.edges:
        if edge.derived is None or edge.source not in found.outputs:
            continue
        offer = registry().find("signals", edge.derived.name)
        config = offer.config.model_validate(edge.derived.config)
        outputs = found.outputs[edge.source].shape[-1]
        of: dict[str, str] = getattr(config, "whole", lambda outputs: {})(outputs) if offer.reads == "logits" else {}
        for setting, words in of.items():
            yield f"{edge.where}.signal: `{setting}: {getattr(config, setting)}` of {offer.name}, {edge}: {words}"


def _ramps(plan: Plan, found: Checked) -> Iterator[str]:
    """Weights that move for longer than the lessons last in which their flows are active, all rounds together."""
    lasts: dict[int, int] = {}  # by flow, the most epochs of a lesson that it is active in, begun ones too
    for stage in plan.stages:
        for key, owner, count in lengths(plan, found, stage):
            for edge in stage.phases[key].edges:
                if plan.owner.get(edge.target) == owner:
                    lasts[edge.id] = max(lasts.get(edge.id, 0), count)
    for edge in plan.edges:
        ramp, last = edge.weight, lasts.get(edge.id)
        if isinstance(ramp, Ramp) and last and last < ramp.epochs and ramp.start != ramp.end:
            yield (
                f"{edge.where}.weight: the ramp of {edge} takes {ramp.epochs:,} epochs, and it is active in {last:,}: "
                f"it ends at {ramp.at(last - 1):.4g}, not at {ramp.end:g}"
            )


def _texts(plan: Plan, found: Checked) -> Iterator[str]:
    """Limits that no agent has, and vocabularies that are alike."""
    if not found.reading.texts:
        return
    text, usual = plan.spec.text, TextSpec.model_fields
    own = {found.reading.encoder(agent).max_length for agent in plan.spec.agents}
    if text.max_length != usual["max_length"].default and text.max_length not in own:
        yield "text.max_length: every agent's model has a `max_length` of its own, so it has no effect"
    sizes = {found.shapes[name, ""][0] for name in plan.spec.agents if (name, "") in found.shapes}
    if text.vocabulary != usual["vocabulary"].default and len(sizes) == 1 and any(map(matched, plan.edges)):
        yield f"text.vocabulary: all models have {sizes.pop():,} outputs, so `{text.vocabulary}` has no effect"
