"""Check, before a run, the prompts that language models will answer, and who reads the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.graph.agreed import draws, longest
from kdmesh.graph.reach import readers, sources
from kdmesh.graph.rollouts import ONCE
from kdmesh.graph.served import served
from kdmesh.graph.sources import written_before
from kdmesh.hosts.read_texts import labels_of
from kdmesh.plugins import registry
from kdmesh.spec import SamplingSpec
from kdmesh.streams.stream import without
from kdmesh.streams.table import LABEL
from kdmesh.streams.texts import Texts

MARK = "\ue000"
"""Stands where a template writes a text that is yet to be written: no character of a text."""

if TYPE_CHECKING:
    from torch import nn

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import StreamSpec


def answered(plan: Plan, found: Checked) -> None:
    """Refuse samples that ask nothing, or cannot be told an agent as its view says; prompts that leave no room for an
    answer; and readers with other tokens.
    """
    for name, stream in plan.spec.streams.items():
        if stream.prompts is not None and stream.generated_by is not None:
            if plan.language_models:
                _labelled(plan, found, name, stream)
            others = _readers(plan, found, name, stream.generated_by) + _judges(plan, found, name, stream)
            agents = {stream.generated_by: None, **dict.fromkeys(others)}
            seen = {(found.reading.key(one), plan.spec.agents[one].view.prompt): one for one in reversed(agents)}
            for agent in reversed(seen.values()):
                _room(plan, found, name, stream, agent)
    for agent, spec in plan.spec.agents.items():
        for name in _given(plan, agent) if spec.view.prompt is not None else ():
            found.reading.told(agent, found.streams[name].rows)  # MeshError for one that it cannot be told
    _alike(plan, found)


def _alike(plan: Plan, found: Checked) -> None:
    """Say which templates name nothing of a sample; refuse one where the texts of all prompts would be the same."""
    from kdmesh.text.views import PromptView

    asked = {f"agents.{name}.view.prompt": one.view.prompt for name, one in plan.spec.agents.items()}
    asked |= {f"streams.{name}.template": one.template for name, one in plan.spec.streams.items()}
    alike = {where for where, one in asked.items() if one is not None and not PromptView(one, where).names}
    for name, stream in plan.spec.streams.items():
        own = f"agents.{stream.generated_by}.view.prompt"
        where = own if stream.template is None else f"streams.{name}.template"
        if stream.prompts is not None and where in alike and stream.sampling is not None and stream.sampling.greedy:
            what = f"it names nothing of a sample, and {stream.generated_by} would write one text to every prompt"
            instead = f"'{{{{ prompt }}}}', a column of the data, or texts that are drawn: greedy: false for {name}"
            raise MeshError(what, where=plan.at(where), instead=instead)
    found.notes += [f"{where} names nothing of a sample: every prompt is the same" for where in sorted(alike)]


def drawn(plan: Plan, found: Checked) -> None:
    """Refuse to draw among as many of the likeliest tokens as there are: the setting would do nothing."""
    hows = [(f"streams.{name}.sampling", one.sampling, {one.generated_by}) for name, one in plan.spec.streams.items()]
    hows += [("text.decoding", plan.spec.text.decoding, set(plan.spec.agents))] if _measures(plan) else []
    for where, how, agents in hows:
        own = [name for name in agents if name is not None and name not in served(plan, registry())]
        if how is None or how.top_k is None or len(own) < len(agents):
            continue
        most = max(found.shapes[name, ""][0] for name in own)
        if how.top_k >= most:
            what = f"{', '.join(sorted(own))} has {most:,} tokens, so that drawing among the {how.top_k:,} likeliest "
            raise MeshError(
                what + "has no effect", where=plan.at(f"{where}.top_k"), instead=f"less than {most:,}, or leave it out"
            )


def _labelled(plan: Plan, found: Checked, name: str, stream: StreamSpec) -> None:
    """What is written gets a class that there is, and nobody is told of a class that is hidden."""
    from kdmesh.text.views import PromptView

    rows = found.streams[name].rows.tolist()
    if found.streams[name].labelled:
        labels_of(found.table, stream, name, rows)
    assert isinstance(found.table.x, Texts)
    paired = next((found.table.x[row] for row in rows if found.table.x[row].pair is not None), None)
    if paired is not None:
        what = f"{paired.at or 'a sample'} has two texts, and {stream.generated_by} writes one"
        raise MeshError(what, where=f"streams.{name}.prompts", instead="data of single texts")
    own = plan.spec.agents[str(stream.generated_by)].view.prompt
    where = f"streams.{name}.template" if stream.template is not None else f"agents.{stream.generated_by}.view.prompt"
    template = stream.template if stream.template is not None else own
    told = set() if template is None else PromptView(template, where).names
    if LABEL in told and LABEL not in found.table.columns and not found.streams[str(stream.prompts)].labelled:
        what = f"the template tells the labels of {stream.prompts!r}, which are hidden"
        raise MeshError(what, where=where, instead="a labelled stream of prompts, or a template without `label`")


def _given(plan: Plan, agent: str) -> list[str]:
    """The streams of given texts on which an agent teaches or learns."""
    read = dict.fromkeys(edge.stream for edge in plan.edges if agent in (edge.source, edge.target))
    specs = {name: plan.spec.streams.get(name) for name in read}
    mixed = [one.mix.of for one in specs.values() if one is not None and one.mix is not None]
    return list(dict.fromkeys([*(name for name, one in specs.items() if one is None or one.prompts is None), *mixed]))


class _Read(NamedTuple):
    """Texts that a template may name: how many tokens one has at most, and how many there are of a prompt."""

    most: int
    texts: int | None  # None: the template is given one, and no list
    alone: bool  # whether the template is given the one that goes with what is written

    def said(self, text: str) -> dict[str, str | list[str]]:
        """What the template is given if each of them is this."""
        found: dict[str, str | list[str]] = {} if self.texts is None else {"texts": [text] * self.texts}
        return {**found, "text": text, "reasoning": text, "answer": text} if self.alone else found


def _reads(plan: Plan, found: Checked, name: str, names: set[str]) -> dict[str, _Read]:
    """What the template of a stream may read, by name; MeshError for what it does not, or for a column of that name."""
    own, reads = plan.spec.streams[name], {}
    for key, other in (own.reads or {}).items():
        at = plan.at(f"streams.{name}.reads.{key}")
        if key in found.table.columns:
            raise MeshError(f"the data have a column {key!r}", where=at, instead="another name in the template")
        if key not in names:
            raise MeshError(
                f"the template does not name {key!r}", where=at, instead=f"{{{{ {key}.text }}}}, or leave it out"
            )
        read, writes = plan.spec.streams[other], own.sampling or SamplingSpec()
        once, samples = read.refresh == ONCE, draws(read)
        reads[key] = _Read(longest(plan.spec, other), samples if once else None, samples in (1, writes.samples))
    return reads


def _room(plan: Plan, found: Checked, name: str, stream: StreamSpec, agent: str) -> None:
    from kdmesh.text.prompts import Asking

    encoder, most = found.reading.encoder(agent), longest(plan.spec, name)
    assert isinstance(found.table.x, Texts)
    template, where = plan.spec.agents[agent].view.prompt, ""
    chosen = agent == stream.generated_by and stream.consensus_of is not None  # it stands after what the data ask
    if chosen:
        template = None
    elif agent == stream.generated_by and stream.template is not None:
        template, where = stream.template, f"streams.{name}.template"
    prompt = Asking(encoder, found.table, template, agent, where)
    reads = _reads(plan, found, name, prompt.names) if stream.consensus_of is None else {}
    unread = encoder.tokenizer.unk_token_id if where else None
    for at, row in enumerate(_asked(plan, found, name)):
        sample = found.table.x[row]
        try:
            ids = prompt.having_read(row, {key: one.said("") for key, one in reads.items()})
            length = len(ids)
            if not at and unread is not None and (unknown := ids.count(unread)):
                asked = f"{plan.at(where)}: {unknown} of the {length} tokens that {agent} is asked"
                told = f"{sample.at or f'sample {row}'}, beside what it reads, are unknown to its tokenizer"
                found.notes.append(f"{asked} of {told}")
            for key, one in reads.items():
                marked = {other: each.said(MARK if other == key else "") for other, each in reads.items()}
                length += one.most * prompt.seen(row, marked).asks().count(MARK)
        except MeshError as error:
            if chosen:
                what = f"what its rule chooses stands after the data's prompts: {error.what}"
                instead = "data with `prompt` or `messages`"
                raise MeshError(what, where=f"streams.{name}.consensus_of", instead=instead) from None
            what, place = f"{agent} cannot be asked: {error.what}", error.where or f"streams.{name}.prompts"
            raise MeshError(what, where=place, instead=error.instead) from None
        if length + most > encoder.max_length:
            read = " with all that it may read" if reads else ""
            raise MeshError(
                f"{sample.at or f'sample {row}'}: its prompt{read} has {length} tokens for {agent}, and with "
                f"{most} new ones the text would have more than the {encoder.max_length} that it reads",
                where=f"streams.{name}.sampling.max_new_tokens",
                instead="fewer, a larger text.max_length (and max_length of the model), or shorter prompts",
            )


def _asked(plan: Plan, found: Checked, name: str) -> list[int]:
    """The samples that a stream answers, those of held out splits too where it, or what is made of it, is measured."""
    rows: list[int] = found.streams[name].rows[:: found.streams[name].draws].tolist()
    measured = [one for one, stream in plan.spec.streams.items() if stream.measured]
    if name in measured or any(name in written_before(plan.spec, one) for one in measured):
        held = without(found.streams, found.left_out)
        rows += [row for split in ("validation", "test") if split in held for row in held[split].rows.tolist()]
    return list(dict.fromkeys(rows))


def _readers(plan: Plan, found: Checked, name: str, writer: str) -> list[str]:
    """Whoever reads the answers: they cut texts into the writer's tokens, which are what crosses."""
    every: list[str] = []
    for edge in plan.edges:
        if edge.stream != name:
            continue
        for agent in (*sources(edge, plan.consensus), *readers(edge.target, plan.consensus)):
            if agent not in plan.spec.agents:
                continue
            if plan.language_models:
                continue  # each reads the words with a tokenizer of its own
            every.append(agent)
            if found.reading.key(agent) != found.reading.key(writer):
                raise MeshError(
                    f"{agent} has another tokenizer or limit than {writer}, whose tokens are what is read on {name!r}",
                    where=edge.where,
                    instead=f"agents with the tokenizer and limits of {writer} on this stream",
                )
    return every


def _judges(plan: Plan, found: Checked, name: str, stream: StreamSpec) -> list[str]:
    """The agents whose loss filters read: they cut texts into the writer's tokens too."""
    every = []
    for field, ref in stream.filters.items():
        for agent in ref.agents:
            if agent == stream.generated_by or (plan.language_models and agent not in plan.language_models):
                continue
            every.append(agent)
            if found.reading.key(agent) != found.reading.key(str(stream.generated_by)):
                raise MeshError(
                    f"{agent} has another tokenizer or limit than {stream.generated_by}, whose tokens it would judge",
                    where=f"streams.{name}.{field}.{ref.name}.of",
                    instead=f"an agent with the tokenizer and limits of {stream.generated_by}",
                )
    return every


def measured(plan: Plan, found: Checked) -> None:
    """Refuse held out samples that ask nothing, or leave no room for an answer, where what is written is measured."""
    from kdmesh.text.prompts import Asking

    streams, how = without(found.streams, found.left_out), plan.spec.text.measured
    for agent in plan.spec.agents if _measures(plan) else ():
        assert isinstance(found.table.x, Texts)
        encoder = found.reading.encoder(agent)
        prompt = Asking(encoder, found.table, None, agent)
        for row in (row for name in ("validation", "test") if name in streams for row in streams[name].rows.tolist()):
            try:
                length = len(prompt(row))
            except MeshError as error:
                what = f"{agent} cannot be asked: {error.what}"
                raise MeshError(what, where="metrics", instead=error.instead) from None
            if length + how.max_new_tokens > encoder.max_length:
                raise MeshError(
                    f"{found.table.x[row].at or f'sample {row}'}: its prompt has {length} tokens for {agent}, and with "
                    f"{how.max_new_tokens} new ones the text would have more than the {encoder.max_length} that it "
                    "reads",
                    where="text.decoding.max_new_tokens",
                    instead="fewer, a larger text.max_length (and max_length of the model), or shorter prompts",
                )


def _measures(plan: Plan) -> bool:
    """Whether a metric asks for what agents write."""
    return any("texts" in registry().find("metrics", ref.name).needs for ref in plan.metrics)


def writers(plan: Plan) -> set[str]:
    """The agents that answer prompts."""
    if _measures(plan):
        return set(plan.spec.agents)
    return {one.generated_by for one in plan.spec.streams.values() if one.prompts and one.generated_by}


def writes(plan: Plan, agent: str, module: nn.Module) -> None:
    """Refuse a model that is to write texts and cannot."""
    from kdmesh.text.generate import refuse_writer

    if _measures(plan):
        refuse_writer(module, "metrics")
    for name, stream in plan.spec.streams.items():
        if stream.prompts is not None and stream.generated_by == agent:
            refuse_writer(module, f"streams.{name}.generated_by")
