"""Measure a stream of texts: what would stand in it if the prompts of a held out split were its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from kdmesh.errors import RunFailed
from kdmesh.hosts.agreeing import Agreeing, Source
from kdmesh.hosts.rollouts import Asked
from kdmesh.hosts.spoken import decoded, figures, told
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.hosts.state import HostState


class Said(TypedDict):
    """What a stream says to the prompts of a split, so many texts to each, one after the other, in tokens; its figures.

    ``answered``: the share of prompts to which a rule chose a text.
    """

    ids: list[list[int]]
    figures: dict[str, Any]
    answered: float


def say(host: HostState, stream: str, split: str, read: Mapping[str, Said]) -> Said:
    """Write it, by weights as they are now; ``read``: what the streams say that it is made of, by the field.

    What is drawn, is by the run's seed, the stream, the agent and the sample: alike each time.
    """
    spec, plan = host.plan.spec.streams[stream], host.plan
    name, author = spec.generated_by, host.authors[stream]
    assert name is not None
    agent, draws, rows = host.agents[name], host.streams[stream].draws, host.streams[split].rows.tolist()
    heard = {field: _by_prompt(host, plan.spec.streams[stream].made_of[field], one, len(rows), draws)
            for field, one in read.items()}  # fmt: skip
    asked = []
    for at, row in enumerate(rows):
        for draw in range(draws):
            given = {
                field if spec.consensus_of else field.partition(".")[2]: _given(spec.consensus_of, of[at], draw)
                for field, of in heard.items()
            }
            asked.append(Asked(row, mix(host.seed, "measured", stream, name, row, draw), given))
    host.threads(agent.weights.settings.threads)
    training = agent.module.training
    agent.weights.train(False)
    try:
        texts = author.write(agent, asked, host.forward_size(name))
    finally:
        if training:
            agent.weights.train()
    ids = [one[before:] for one, before in texts]
    if isinstance(author, Agreeing):
        chosen = author.agreed
        known, answered = [one.text for one in chosen], sum(not one.why for one in chosen) / max(1, len(chosen))
        ids = [[] if one.why else each for one, each in zip(chosen, ids, strict=True)]
    else:
        source, answered = Source(host, stream, split), 1.0
        known = [source(one.sample, at % draws, each) for at, (one, each) in enumerate(zip(asked, ids, strict=True))]
    return {"ids": ids, "figures": figures(host, known, f"stream {stream!r}", split), "answered": answered}


def _by_prompt(host: HostState, name: str, said: Said, prompts: int, draws: int) -> list[dict[str, Any]]:
    """Of each prompt all that a stream says, in tokens and words."""
    theirs = host.streams[name].draws
    if len(said["ids"]) != prompts * theirs:
        raise RunFailed(f"{name} says {len(said['ids'])} texts to {prompts} prompts", where=f"streams.{name}")
    writer = host.plan.spec.streams[name].generated_by
    assert writer is not None
    marks, tokenizer = host.plan.spec.text.reasoning, host.reading.encoder(writer).tokenizer
    found = []
    for at in range(prompts):
        ids = said["ids"][at * theirs : (at + 1) * theirs]
        found.append(
            {"ids": ids, "texts": [decoded(tokenizer, one) for one in ids], "own": theirs in (1, draws), "marks": marks}
        )
    return found


def _given(rule: Sequence[str] | None, of: dict[str, Any], draw: int) -> dict[str, Any]:
    """What a rule, or a template, is given of the texts that answer one prompt."""
    if rule:
        return {"ids": of["ids"]}
    texts: list[str] = of["texts"]
    return {"texts": texts, **(told(texts[draw % len(texts)], of["marks"]) if of["own"] else {})}
