"""Extraction: whether a language model says a secret that it is asked for, and spans of texts that it learned.

It is asked with what stands before the secret, and goes on: once by the likeliest tokens, and some times by chance
(Carlini et al., "The Secret Sharer", 2019, section 6). What it writes to the beginnings of texts is searched for spans
of texts that were learned, and, to compare with, of as many texts that nobody learned.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdmesh.audits.membership import exact_interval
from kdmesh.audits.spans import Spans, words
from kdmesh.hosts.planting import before_secret
from kdmesh.spec import SamplingSpec
from kdmesh.streams.seeds import mix
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.generate import generate, refuse_writer
from kdmesh.text.prompts import Asking
from kdmesh.text.spoken import Spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.inference.auditing.opened import Opened
    from kdmesh.inference.trained import Trained

ROWS = 32
BEGIN = 3
"""Words of a text with which a model is asked to go on."""


@dataclass(frozen=True)
class Said:
    """How many of ``canaries`` an agent says when it is asked with what stands before: by ``greedy`` decoding, and in
    any of ``draws`` tries by chance. ``prompts``: different texts that it was asked with."""

    agent: str
    inside: bool
    canaries: int
    greedy: int
    drawn: int
    draws: int
    prompts: int

    @property
    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of 95%, of both shares."""
        return exact_interval(self.greedy, self.canaries), exact_interval(self.drawn, self.canaries)


@dataclass(frozen=True)
class Overlap:
    """Words of the longest span in each text that an agent wrote, of texts that ``learned_by`` learned and of as many
    that nobody did: means and the longest."""

    agent: str
    learned_by: str
    written: int
    texts: int
    mean: float
    mean_others: float
    longest: int
    longest_others: int
    shown: str


def said(opened: Opened, agent: str, trained: Trained, draws: int, seed: int = 0) -> list[Said]:
    """Of secrets that are in, and of those that are out, which nobody can have told it."""
    planted, data = opened.table.planted, opened.plan.spec.data
    if planted is None or planted.kind != "secret" or not trained.writes or data is None or data.canaries is None:
        return []
    spec = data.canaries
    before = [before_secret(spec, one.number).rstrip() for one in planted.canaries]
    prompts = list(dict.fromkeys(before))
    length = max(len(trained.module.encoder.tokenizer(one.secret)["input_ids"]) for one in planted.canaries) + 2
    greedy = dict(zip(prompts, written(trained, prompts, length), strict=True))
    tries: dict[str, list[str]] = {one: [] for one in prompts}
    if draws:
        texts = written(trained, [one for one in prompts for _ in range(draws)], length, seed)
        tries = {one: texts[at * draws : (at + 1) * draws] for at, one in enumerate(prompts)}
    found = []
    for inside in (True, False):
        own = [(one.secret, text) for one, text in zip(planted.canaries, before, strict=True) if one.inside == inside]
        found.append(
            Said(
                agent, inside, len(own), sum(_says(greedy[text], secret) for secret, text in own),
                sum(any(_says(one, secret) for one in tries[text]) for secret, text in own), draws, len(prompts),
            )
        )  # fmt: skip
    return found


def _says(text: str, secret: str) -> bool:
    return text.lstrip().startswith(secret)


def overlaps(opened: Opened, agent: str, trained: Trained, count: int, tokens: int, seed: int = 0) -> list[Overlap]:
    """Spans of learned texts in what an agent writes to the beginnings of ``count`` of them."""
    if not trained.writes or not count:
        return []
    drawn, found = random.Random(mix(seed, "spans", agent)), []
    held = _texts(opened, opened.held)
    for name, mask in opened.told(agent).items():
        own = _texts(opened, mask)
        size = min(len(own), len(held))
        known, others = drawn.sample(own, size), drawn.sample(held, size)
        asked = [" ".join(one.split()[:BEGIN]) for one in drawn.sample(known, min(count, size))]
        asked = [one for one in asked if one]
        if not asked:
            continue
        texts = [f"{begin} {text}" for begin, text in zip(asked, written(trained, asked, tokens), strict=True)]
        index, compare = Spans(known), Spans(others)
        spans, compared = [index.longest(one) for one in texts], [compare.longest(one) for one in texts]
        best = max(spans, key=lambda one: one.words)
        found.append(
            Overlap(
                agent, name, len(texts), size, sum(one.words for one in spans) / len(texts),
                sum(one.words for one in compared) / len(texts), best.words, max(one.words for one in compared),
                best.said,
            )
        )  # fmt: skip
    return found


def _texts(opened: Opened, mask: Tensor) -> list[str]:
    samples = [opened.table.texts[row] for row in mask.nonzero().flatten().tolist()]
    texts = [f"{one.asks()} {one.answers()}".strip() for one in samples]
    return [one for one in texts if len(words(one)) > BEGIN]


def written(trained: Trained, prompts: Sequence[str], tokens: int, seed: int | None = None) -> list[str]:
    """What an agent goes on with from each text: by the likeliest tokens, or drawn, each by a seed of its own."""
    module, encoder = trained.module.model, trained.module.encoder
    refuse_writer(module, trained.config.agent)
    table = Table(Texts([Sample(prompt=one, at="what an audit asks") for one in prompts]), None, 0)
    asking = Asking(encoder, table, None, trained.config.agent)
    how = SamplingSpec(max_new_tokens=tokens, greedy=seed is None)
    speaks = Spoken(encoder, table, 0, how, False, None)
    seeds = [] if seed is None else [mix(seed, "audit", number, one) for number, one in enumerate(prompts)]
    ids = [asking(row)[-(encoder.max_length - tokens) :] for row in range(len(prompts))]
    with trained.settled():
        answers = generate(module, ids, how, ends=speaks.ends, pad=encoder.pad, rows=ROWS, seeds=seeds)
    return [speaks(row, 0, answer).text for row, answer in enumerate(answers)]
