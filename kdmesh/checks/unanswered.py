"""Check samples that are prompts alone: what would learn, compare or measure an answer that the data do not give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.contracts.filter import parted
from kdmesh.errors import MeshError
from kdmesh.graph.kept import asks_known
from kdmesh.graph.private import MEASURED
from kdmesh.plugins import registry
from kdmesh.spec import FilterRef, MetricRef
from kdmesh.streams.stream import without
from kdmesh.streams.texts import Texts

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import TextRuleRef

ALONE = "prompts alone, which the data do not answer"
ANSWERS = "data with answers (`text`, or an assistant's last turn)"


def refuse(plan: Plan, found: Checked) -> None:
    """Raise MeshError for the first such thing of a language model; note which figures are left out."""
    if plan.task.outputs != "vocabulary" or not isinstance(found.table.x, Texts):
        return
    for edge in plan.edges:
        _learned(plan, found, edge)
    _filtered(plan, found)
    _measured(plan, found)


def given(plan: Plan, found: Checked, edge: Edge) -> Tensor | None:
    """The rows of given samples on a flow, for all agents; None where all texts are written."""
    stream, spec = found.streams.get(edge.stream), plan.spec.streams.get(edge.stream)
    if stream is None or spec is None or spec.prompts is None:
        return None if stream is None else stream.rows
    return stream.mixed


def _learned(plan: Plan, found: Checked, edge: Edge) -> None:
    rows = given(plan, found, edge)
    if rows is None or not len(rows) or "hidden" in (edge.reads, edge.form) or edge.as_ == "weights":
        return
    assert isinstance(found.table.x, Texts)
    if any(one.answered for one in found.table.x[rows]):
        return
    spec = plan.spec.streams.get(edge.stream)
    mixed = None if spec is None or spec.prompts is None else spec.mix
    name, where = (edge.stream, edge.where) if mixed is None else (mixed.of, f"streams.{edge.stream}.mix.of")
    instead = f"{ANSWERS}, or a stream that an agent writes: {{generated_by: AGENT, prompts: {name}}}"
    raise MeshError(
        f"there is nothing to learn on {name!r}: its {len(rows)} samples are {ALONE}",
        where=plan.at(where) if mixed is not None else where,
        instead=instead if mixed is None else f"a stream of {ANSWERS}, or no `mix`",
    )


def _filtered(plan: Plan, found: Checked) -> None:
    """Filters and rules compare with what the data answer: to every prompt, and not where that is hidden."""
    texts, reasoning = found.table.x, plan.spec.text.reasoning
    marks = None if reasoning is None else (reasoning[0], reasoning[1])
    assert isinstance(texts, Texts)
    for name, spec in plan.spec.streams.items():
        rule: dict[str, FilterRef | TextRuleRef] = {} if spec.rule is None else {"rule": spec.rule}
        for field, ref in {**spec.filters, **rule}.items():
            setting, scored = asks_known(ref, registry()), "" if ref.is_import else scored_by(ref)
            if not setting and not scored:
                continue
            where, stream = f"streams.{name}.{field}", found.streams[name]
            who = f"{'rule' if field in rule else 'filter'} {ref.name!r}"
            instead = f"{setting}: COLUMN, the data's column that has it"
            if scored:
                where, who = f"{where}.{ref.name}.{scored}", f"the {scored} of {who}"
                instead = "a metric of what is written alone, as pattern or verifier; or data with answers"
            hides = next((one for one in (name, *(spec.consensus_of or ())) if not found.streams[one].labelled), "")
            if hides in ("", name):
                what = f"{name!r} hides what the data answer, and {who} compares with it"
            else:
                where = f"streams.{hides}.labels"
                what = f"{hides!r} hides what the data answer, and {who} of {name!r} compares with it"
                instead = f"leave it out{'' if scored else f', or {setting}: COLUMN in that rule'}"
            if not hides:
                said = ((row, parted(texts[row].answers(), marks)[1]) for row in stream.rows.tolist())
                alone = [row for row, answer in said if not answer.strip()]
                if not alone or (scored and len(alone) < len(stream.rows)):  # where it scores, the others count
                    continue
                what = f"{texts[alone[0]].at or f'sample {alone[0]}'} has no answer, and {who} compares with it"
            raise MeshError(what, where=plan.at(where), instead=instead)


def scored_by(ref: FilterRef | TextRuleRef) -> str:
    """The setting of a rule that names a metric which needs what the data answer; "" where there is none."""
    if isinstance(ref, FilterRef):
        return ""
    settings = registry().find("text_rules", ref.name).config.model_validate(ref.config)
    metrics = {field: getattr(settings, field) for field in type(settings).model_fields}
    return next((field for field, one in metrics.items() if isinstance(one, MetricRef) and compares(one)), "")


def lacking(found: Checked, name: str) -> bool:
    """Whether a split is there, and no sample of it has an answer."""
    stream, texts = without(found.streams, found.left_out).get(name), found.table.x
    assert isinstance(texts, Texts)
    return stream is not None and len(stream.rows) > 0 and not any(one.answers() for one in texts[stream.rows])


def compares(ref: MetricRef) -> bool:
    """Whether a metric of language models needs what the data answer."""
    needs = registry().find("metrics", ref.name).needs
    return "texts" not in needs or "given" in needs


def _measured(plan: Plan, found: Checked) -> None:
    there = [name for name in MEASURED if name in found.streams and len(found.streams[name].rows)]
    bare = [name for name in there if lacking(found, name)]
    if not bare:
        return
    for ref in plan.metrics:
        if ref.key == plan.primary and compares(ref):
            _refuse(ref, bare[0], "primary" if plan.spec.primary else f"data.{bare[0]}")
    for number, ref in enumerate(plan.spec.metrics):
        if compares(ref) and len(bare) == len(there):
            _refuse(ref, bare[0], f"metrics.{number}")
    for name in bare:
        out = ", ".join(ref.key for ref in plan.metrics if compares(ref))
        found.mark(f"the samples of {name} are {ALONE}: there is no figure of {out}")


def watched(plan: Plan, found: Checked, key: str, where: str) -> None:
    """Raise MeshError where early stopping watches what needs the answers of validation, which has none."""
    if plan.task.outputs != "vocabulary" or not isinstance(found.table.x, Texts) or not lacking(found, "validation"):
        return
    for ref in plan.metrics:
        if ref.key == key and compares(ref):
            _refuse(ref, "validation", where)


def _refuse(ref: MetricRef, name: str, where: str) -> None:
    other = "a metric of what is written alone, as verifier (`metrics`, `primary`)"
    raise MeshError(
        f"{ref.key} compares with what the data answer, and the samples of {name!r} are {ALONE}",
        where=where,
        instead=f"{name}_path: a file with answers; data: {{{name}: 0}}; or {other}",
    )
