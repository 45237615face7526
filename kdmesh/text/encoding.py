"""From a model's settings to the encoder of its texts: what a model offer of texts names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.text import tokenizers
from kdmesh.text.encoder import Encoder
from kdmesh.text.heads import CAUSAL, head_of
from kdmesh.text.source import in_two_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kdmesh.spec import TextSpec


def encoder(
    config: Any,
    *,
    task: str,
    text: TextSpec,
    tags: list[str],
    agent: str,
    files: dict[str, str] | None,
    texts: Callable[[], Iterable[str]],
) -> Encoder:
    """Load the tokenizer that the settings name, or make it from ``texts``; ``files``: one that was made before."""
    if config.processor is not None:
        raise MeshError("the data are texts", where="model.hf.processor", instead="leave it out: it is of images")
    if text.pack and head_of(task) != CAUSAL:
        raise MeshError("packed samples are for language modelling", where="text.pack", instead="pack: false")
    two_parts = False
    if head_of(task) == CAUSAL:
        trusted = config.trust_remote_code is not None
        two_parts = in_two_parts(config.path, config.revision, trusted, config.config)
    if two_parts and text.pack:
        what = "a model that reads with one part and writes with another does not keep packed samples apart"
        raise MeshError(what, where="text.pack", instead="pack: false")
    made_of = partial(tokenizers.for_model, config, texts, task, two_parts)
    tokenizer = tokenizers.loads(files) if files is not None else made_of()
    said = tokenizers.pad(tokenizer, config, task)
    embeds = config.bi_encoder is not None
    limit = text.max_length if config.max_length is None else min(config.max_length, text.max_length)
    made = Encoder(
        tokenizer,
        task,
        max_length=limit,
        over=text.over,
        tags=tags,
        agent=agent,
        pack=text.pack,
        embeds=embeds,
        two_parts=two_parts,
    )
    made.notes += [said] if said else []
    if config.max_length is not None and config.max_length > limit:
        made.notes.append(f"reads {limit} tokens, as text.max_length says: its own max_length has no effect")
    return made
