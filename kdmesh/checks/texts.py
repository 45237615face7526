"""Check how agents read texts: what is cut off or left out, and whether what they say can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.graph.agreed import longest
from kdmesh.graph.reach import readers, sources
from kdmesh.plugins import registry
from kdmesh.signals.crossing import crosses_hidden
from kdmesh.streams.private import learnable
from kdmesh.streams.stream import without

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan


def read(plan: Plan, found: Checked) -> None:
    """Encode every sample with every tokenizer, and leave out what some agent could not read whole, if so asked."""
    if not found.reading.texts:
        _without(plan)
        return
    dropped: set[int] = set()
    reasons: dict[int, str] = {}
    for agent in plan.spec.agents:
        report = found.reading.report(agent)
        dropped.update(report.dropped, report.unreadable)
        reasons |= report.unreadable
    found.pairs = pairs_of(plan, found)
    for agent, rows in found.pairs.items():
        try:
            report = found.reading.report(agent, True)
        except MeshError as error:
            error.what += f", in the pairs of {_pairs_in(plan, found, agent)}"
            raise
        own = {*rows.tolist()}
        dropped.update(row for row in (*report.dropped, *report.unreadable) if row in own)
        reasons |= report.unreadable
    whole = dict(found.streams)
    if dropped:
        found.left_out = torch.tensor(sorted(dropped))
        found.streams = without(found.streams, found.left_out)
    for name, stream in found.streams.items():
        if not len(stream.rows):
            reason = next((reasons[row] for row in whole[name].rows.tolist() if row in reasons), None)
            if reason is not None:
                raise MeshError(
                    f"no sample of {name!r} can be read; the first: {reason}",
                    where=f"data.{name}" if name in ("train", "validation", "test") else f"streams.{name}",
                    instead="samples that its agents can read",
                )
            raise MeshError(
                f"every sample of {name!r} is over the limit of {plan.spec.text.max_length} tokens",
                where="text.max_length",
                instead="a larger max_length, or over: truncate",
            )


def pairs_of(plan: Plan, found: Checked) -> dict[str, Tensor]:
    """By agent that reads pairs, the rows of the table of which it does; MeshError where the data have no pairs."""
    rows = {
        agent: torch.cat([found.streams[name].rows for name in names]).unique()
        for agent, names in _streams_of_pairs(plan, found).items()
    }
    for row in torch.cat([*rows.values()]).unique().tolist() if rows else ():
        sample: Any = found.table.x[row]
        if sample.rejected is None and not sample.fault:
            raise MeshError(
                f"{sample.at or f'sample {row}'} has one answer, and its pair is read",
                where=next(
                    (f"streams.{name}.pairs" for name, one in plan.spec.streams.items() if one.pairs), "metrics"
                ),
                instead="text: {path: FILE, prompt: PROMPT, text: CHOSEN, rejected: REJECTED}",
            )
    return rows


def _streams_of_pairs(plan: Plan, found: Checked) -> dict[str, list[str]]:
    """By agent that reads pairs, the streams of which it does."""
    asked: dict[str, list[str]] = {}
    for edge in plan.edges:
        stream = found.streams.get(edge.stream)
        if stream is None or not stream.pairs:
            continue
        for agent in (edge.target, *sources(edge, plan.consensus)):
            if agent in plan.spec.agents:
                asked.setdefault(agent, []).append(edge.stream)
    if any("pairs" in registry().find("metrics", ref.name).needs for ref in plan.metrics):
        for agent in plan.spec.agents:
            asked.setdefault(agent, []).extend(name for name in ("validation", "test") if name in found.streams)
    return {agent: list(dict.fromkeys(names)) for agent, names in asked.items() if names}


def _pairs_in(plan: Plan, found: Checked, agent: str) -> str:
    """The same in words, of one agent."""
    return ", ".join(map(repr, _streams_of_pairs(plan, found)[agent]))


def _without(plan: Plan) -> None:
    """Refuse settings of texts where the data have none."""
    for name, field in type(plan.spec.text).model_fields.items():
        if getattr(plan.spec.text, name) != field.default:
            raise MeshError(
                "it says how texts become tokens, and these data have none, so it has no effect",
                where=f"text.{name}",
                instead="leave it out, or a data set of texts: {text: {path: FILE}}",
            )


def learned(plan: Plan, found: Checked) -> None:
    """Refuse a flow whose target has no token to answer for: its stream's answers are all cut off."""
    for edge in plan.edges if plan.task.rows == "units" and found.reading.texts else ():
        written = edge.stream in plan.spec.streams and plan.spec.streams[edge.stream].prompts is not None
        for agent in (edge.target, *sources(edge, plan.consensus)):
            if agent not in plan.spec.agents or "hidden" in (edge.reads, edge.form):
                continue
            stream = found.streams.get(edge.stream)
            rows = None if stream is None else stream.mixed if written else stream.rows_for(agent)
            pairs = stream is not None and stream.pairs
            if rows is not None and not int(found.reading.encoded(agent, rows, pairs).counts.sum()):
                raise MeshError(
                    f"nothing is left to learn for {agent} in the {len(rows)} samples of {edge.stream!r}: what it "
                    "would learn is beyond its limit",
                    where="text.max_length",
                    instead=f"a larger max_length; its longest sample has {found.reading.report(agent).longest} tokens",
                )


def _pairs(found: Checked, edge: Edge) -> bool:
    return found.streams[edge.stream].pairs


def reports(plan: Plan, found: Checked) -> dict[str, dict[str, Any]]:
    """By agent: samples and what became of them, the longest in tokens, and characters that are learned."""
    if not found.reading.texts:
        return {}
    report_of = {}
    for agent in plan.spec.agents:
        one = found.reading.report(agent)
        report_of[agent] = {
            "samples": one.samples,
            "truncated": len(one.truncated),
            "dropped": len(one.dropped),
            "unreadable": len(one.unreadable),
            "nothing_learned": len(one.empty),
            "tokens": one.tokens,
            "unknown": one.unknown,
            "not_written": dict(sorted(one.unread.items())),
            "words_lost": one.lost,
            "longest": one.longest,
            "characters": one.characters,
            "vocabulary": found.reading.encoder(agent).vocabulary,
            **({"pairs": _of_pairs(found, agent)} if agent in found.pairs else {}),
        }
    return report_of


def _of_pairs(found: Checked, agent: str) -> dict[str, int]:
    """What became of the pairs that an agent reads."""
    own, one = {*found.pairs[agent].tolist()}, found.reading.report(agent, True)
    counted = {"truncated": one.truncated, "dropped": one.dropped, "unreadable": one.unreadable}
    return {"samples": len(own), **{name: len(own.intersection(which)) for name, which in counted.items()}}


def told(plan: Plan, found: Checked) -> list[str]:
    """The same in words, a line for each agent."""
    return [
        f"agent {name} reads {one['samples']} texts with {one['vocabulary']:,} kinds of token, the longest of "
        f"{one['longest']}; truncated: {one['truncated']}, dropped: {one['dropped']}, unreadable: {one['unreadable']}, "
        f"with nothing to learn: {one['nothing_learned']}"
        for name, one in reports(plan, found).items()
    ]


def notes(plan: Plan, found: Checked) -> list[str]:
    """What a run says before it starts: samples that are not read whole, and vocabularies that are cut to fit."""
    said = _unread_pairs(plan, found)
    allowed = learnable(found.streams)
    if found.reading.trained and allowed is not None and len(allowed) < (whole := len(found.streams["train"].rows)):
        said.append(f"tokenizers are made from {len(allowed)} of {whole} training texts: the others are private")
    for name, one in reports(plan, found).items():
        every = f"of {one['samples']} texts"
        said += [f"{name} {note}" for note in found.reading.encoder(name).notes]
        if one["truncated"] or one["dropped"]:
            said.append(f"{name} reads {one['truncated']} {every} cut to its limit, {one['dropped']} are left out")
        alone = found.reading.report(name).alone
        if alone:
            said.append(f"{alone} {every} are prompts alone: answers to them are learned, where agents write some")
        if cut := one["nothing_learned"] - alone:
            said.append(f"{cut} {every} leave {name} nothing to learn within its limit")
        if one["unknown"]:
            said.append(
                f"{one['unknown']:,} of {one['tokens']:,} tokens that {name} reads are unknown to its tokenizer"
            )
        if pairs := one.get("pairs"):
            said += _told_of_pairs(found, name, pairs, _pairs_in(plan, found, name))
        for row, reason in list(found.reading.report(name).unreadable.items())[:1]:
            said.append(
                f"{one['unreadable']} {every} are left out because {name} cannot read them: sample {row}, {reason}"
            )
        for what, count in one["not_written"].items():
            said.append(f"{name}'s chat template does not write {what}, which {count} {every} have")
    for edge in plan.edges if plan.task.outputs == "vocabulary" else ():
        if edge.target in plan.spec.agents and edge.form != "hidden" and "spans" not in edge.needs:
            sizes = {found.shapes[agent, ""][0] for agent in (*sources(edge, plan.consensus), edge.target)}
            if len(sizes) > 1:
                least = min(sizes)
                said.append(f"{edge} compares the first {least:,} of {max(sizes):,} outputs, renormalised")
    return list(dict.fromkeys(said))


def _unread_pairs(plan: Plan, found: Checked) -> list[str]:
    """What is said of second answers that nobody reads, and of pairs where samples are packed."""
    if found.pairs:
        return ["pairs have a row of tokens for each answer, and are not packed"] if plan.spec.text.pack else []
    given = found.reading.texts and found.table.texts.rejects
    return ["the data have rejected answers, and no stream with `pairs: true` is read"] if given else []


def _told_of_pairs(found: Checked, agent: str, one: dict[str, int], streams: str) -> list[str]:
    """What is said of pairs that an agent does not read whole."""
    said, every = [], f"of {one['samples']} pairs of {streams}"
    if one["truncated"] or one["dropped"]:
        said.append(f"{agent} reads {one['truncated']} {every} cut to its limit, {one['dropped']} are left out")
    if one["unreadable"]:
        plain, pairs = (found.reading.report(agent, which).unreadable for which in (False, True))
        row, reason = next(((row, why) for row, why in pairs.items() if row not in plain), next(iter(pairs.items())))
        said.append(
            f"{one['unreadable']} {every} are left out of all streams because {agent} cannot read them: "
            f"sample {row}, {reason}"
        )
    return said


def crossings(plan: Plan, found: Checked) -> list[str]:
    """How the outputs of language models go from one agent to others, and why, a line for each source and stream."""
    lines: dict[tuple[str, str], str] = {}
    for edge in plan.edges:
        width = found.widths.get(edge.source, 0)  # 0: of a model that does more to its logits than to project
        few = found.numbers.get((edge.source, edge.output))
        if plan.task.outputs != "vocabulary" or edge.source not in plan.spec.agents or (edge.output and few is None):
            continue
        kinds = found.shapes[edge.source, ""][0]
        rows = _units(plan, found, edge)
        batch = max((plan.train(name).batch_size for name in readers(edge.target, plan.consensus)), default=0)
        size = int(rows.double().mean().item() * batch) if edge.live else int(rows.sum())
        apart, whole = size * width + kinds * width, size * kinds
        when = "a step" if edge.live else f"each publication ({edge.refresh})"
        if few is not None:
            lines[edge.source, edge.stream + edge.output] = (
                f"{edge.source} sends {edge.output}: {size:,} tokens {when}, {size * few:,} numbers in place of "
                + (f"{apart:,} (hidden rows and the layer that maps them) or " if width else "")
                + f"{whole:,} (logits)"
            )
            continue
        if not width:
            lines[edge.source, edge.stream] = (
                f"{edge.source} sends logits: {size:,} tokens {when}, of {kinds:,} logits ({whole:,} numbers)"
            )
            continue
        how = (
            f"hidden rows and the layer that maps them, {apart:,} numbers"
            if crosses_hidden(size, width, kinds)
            else "logits"
        )
        lines[edge.source, edge.stream] = (
            f"{edge.source} sends {how}: {size:,} tokens {when}, of {width:,} hidden values or {kinds:,} logits "
            f"({whole:,} numbers)"
        )
    return list(lines.values())


def _units(plan: Plan, found: Checked, edge: Edge) -> Tensor:
    """How many answers a source gives for each sample of a stream; where texts are yet to be written, at most."""
    rows, stream = found.streams[edge.stream].rows, plan.spec.streams.get(edge.stream)
    if stream is not None and stream.prompts is not None:
        most = longest(plan.spec, edge.stream) * (2 if stream.pairs is True else 1)
        if (mixed := found.streams[edge.stream].mixed) is not None:
            most = max(most, int(found.reading.encoded(edge.source, mixed).counts.max()))
        return torch.full_like(rows, most)
    return found.reading.encoded(edge.source, rows, _pairs(found, edge)).counts


def compare(plan: Plan, found: Checked) -> None:
    """Refuse flows between agents whose rows do not belong together: other tokens, or other vocabularies."""
    if not found.reading.texts:
        return
    for edge in plan.edges:
        for source in sources(edge, plan.consensus) if edge.target in plan.spec.agents else ():
            if "spans" not in edge.needs and (plan.task.rows == "units" or _per_token(found, edge, source)):
                unlike = "" if _pairs(found, edge) else ", or an objective for unlike tokenizers: uld, span"
                _same_rows(plan, found, (source, edge.target), edge, unlike)
    for node in plan.consensus.values() if plan.task.rows == "units" else ():
        first, *others = ((name, edge) for edge in node.inputs for name in sources(edge, plan.consensus))
        for name, edge in others:
            unlike = ", or from each a flow of its own, with objective uld or span"
            _same_rows(plan, found, (first[0], name), edge, unlike)
        for edge in node.readers if node.space == "gradient" else ():
            if "spans" in edge.needs and found.reading.key(first[0]) != found.reading.key(edge.target):
                raise MeshError(
                    f"{edge.target} has other tokens than the sources of {node.name}, and a rule cannot compare the "
                    "gradients at its tokens with their outputs at other tokens",
                    where=edge.where,
                    instead="space: loss, probs or logits on the consensus",
                )


def _same_rows(plan: Plan, found: Checked, ends: tuple[str, str], edge: Edge, instead: str) -> None:
    _same_tokens(plan, found, ends, edge, instead)
    if edge.form != "hidden" and plan.task.outputs == "vocabulary":
        _same_vocabulary(plan, found, ends, edge)


def _per_token(found: Checked, edge: Edge, source: str) -> bool:
    return edge.tap is not None and (source, edge.tap.of) in found.per_token


def _same_tokens(plan: Plan, found: Checked, ends: tuple[str, str], edge: Edge, instead: str) -> None:
    """Two agents have a row for the same parts of each text. ``instead``: what else to write than a flow like this."""
    reading, (source, target) = found.reading, ends
    if reading.key(source) == reading.key(target):
        return
    if plan.task.source == "spans" and edge.form != "hidden":
        every = torch.cat([stream.rows for stream in found.streams.values()]).unique()
        one, other = (reading.encoded(agent, every).counts for agent in (source, target))
        if torch.equal(one, other):
            return
        row = int(every[(one != other).nonzero()[0]])
        raise MeshError(
            f"{source} and {target} read a different number of words of sample {row}: one of them is cut off",
            where="text.max_length",
            instead="a larger max_length, or over: drop",
        )
    raise MeshError(
        f"{source} and {target} cut texts into different tokens, and "
        + ("this flow compares" if target == edge.target else f"{edge.target} combines their outputs")
        + " token by token",
        where=edge.where,
        instead=f"agents with one tokenizer and limit{instead}",
    )


def _same_vocabulary(plan: Plan, found: Checked, ends: tuple[str, str], edge: Edge) -> None:
    source, target = ends
    one, other = (found.shapes[agent, ""][0] for agent in ends)
    if one != other and plan.spec.text.vocabulary == "exact":
        raise MeshError(
            f"{source} has {one:,} outputs and {target} {other:,}: their vocabularies differ in size",
            where=edge.where,
            instead=f"text: {{vocabulary: prefix}} compares the first {min(one, other):,}, renormalised",
        )
