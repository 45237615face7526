"""Measure what an agent writes to the prompts of a stream, with the mesh's fixed decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.filter import parted
from kdmesh.contracts.metric import Answers
from kdmesh.errors import MeshError
from kdmesh.hosts.metrics import at_once
from kdmesh.hosts.stored_texts import memory
from kdmesh.streams.seeds import mix
from kdmesh.text.generate import generate
from kdmesh.text.model import TextModel
from kdmesh.text.prompts import Asking
from kdmesh.text.spoken import Spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.state import HostState
    from kdmesh.spec import MetricRef

TEXTS = "texts"  # among figures: some prompts of the stream with what was written and what the data answer
SHOWN, LONGEST = 4, 2000  # such prompts, and characters of each of their parts


def asked(host: HostState) -> list[MetricRef]:
    """The metrics of the mesh that are of written texts."""
    return [ref for ref in host.plan.metrics if TEXTS in host.registry.find("metrics", ref.name).needs]


def measure(host: HostState, one: Agent, stream: str) -> dict[str, Any]:
    """The figures of what an agent writes to each prompt of a labelled stream; nothing where no metric asks for it."""
    rows = host.streams[stream].rows.tolist()
    if not asked(host) or not rows:
        return {}
    if isinstance(one.module, TextModel):
        texts = written(host, one, stream)
    else:  # it stands in for a model, in the trial
        texts = [_own(host, one, row) for row in rows]
    return figures(host, texts, one.name, stream)


def figures(host: HostState, texts: list[WrittenText], who: str, stream: str) -> dict[str, Any]:
    """What the metrics of texts say of those that ``who`` wrote to a stream, and some of these."""
    rows = as_rows(texts)
    found = at_once(((ref, rows) for ref in asked(host)), host.registry, f"on what {who} wrote to {stream}")
    return found | ({TEXTS: shown(texts)} if not any(each.private for each in host.streams.values()) else {})


def as_rows(texts: Sequence[WrittenText]) -> Answers:
    """Written texts as metrics see them."""
    return Answers(torch.zeros(len(texts), 0), torch.zeros(len(texts), dtype=torch.int64), texts=texts)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """What the tokens of an answer say, without those that stand for no text."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def told(text: str, marks: Sequence[str] | None) -> dict[str, str]:
    """What a template may name of one text: all of it, and its reasoning and answer apart."""
    reasoning, answer = parted(text, None if marks is None else (marks[0], marks[1]))
    return {"text": text, "reasoning": reasoning, "answer": answer}


def shown(texts: list[WrittenText]) -> list[dict[str, str]]:
    """A few of the texts, evenly spaced, as the summary and the page have them."""
    count = min(SHOWN, len(texts))
    some = [texts[number * len(texts) // count] for number in range(count)]
    return [
        {"at": one.at, **{part: getattr(one, part)[:LONGEST] for part in ("prompt", "text", "given")}} for one in some
    ]


def written(host: HostState, one: Agent, stream: str) -> list[WrittenText]:
    """What an agent writes to each prompt, asked as the data ask; others of the stream change a text by rounding alone.

    What is drawn, where the decoding draws, is drawn by the run's seed, the agent and the sample: alike each time. What
    a frozen agent writes is kept in the store, as what it writes for a stream is.
    """
    how, encoder, rows = (
        host.plan.spec.text.measured,
        host.reading.encoder(one.name),
        host.streams[stream].rows.tolist(),
    )
    prompt = Asking(encoder, host.table, None, one.name)
    spoken = Spoken(encoder, host.table, rows[0], how, True, host.plan.spec.text.reasoning)
    host.threads(one.weights.settings.threads)
    training, model = one.module.training, one.module
    assert isinstance(model, TextModel)
    one.weights.train(False)
    size = host.forward_size(one.name)
    try:
        with one.precision():
            answers = generate(
                model,
                [prompt(row) for row in rows],
                how,
                ends=spoken.ends,
                pad=encoder.pad,
                rows=size,
                seeds=[mix(host.seed, "decoding", one.name, row) for row in rows],
                decode=lambda ids: str(encoder.tokenizer.decode(ids)),
                memory=memory(host, one, stream, how, encoder, spoken.ends, size),
            )
    except MeshError as error:
        error.where = error.where or "metrics"
        raise
    finally:
        if training:
            one.weights.train()
    return [spoken(row, 0, answer) for row, answer in zip(rows, answers, strict=True)]


def _own(host: HostState, one: Agent, row: int) -> WrittenText:
    """The data's own answer, as if it was written."""
    encoder = host.reading.encoder(one.name)
    text = host.plan.spec.text
    spoken = Spoken(encoder, host.table, row, text.measured, True, text.reasoning)
    sample = host.table.texts[row]
    return spoken(row, 0, encoder.tokenizer(sample.answers(), add_special_tokens=False)["input_ids"])
