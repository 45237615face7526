"""From a model's settings to the encoder of its texts: what a model offer of texts names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.text import tokenizers
from kdmesh.text.encoder import Encoder
from kdmesh.text.heads import CAUSAL, head_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.spec import TextSpec


def encoder(
    config: Any,
    *,
    task: str,
    text: TextSpec,
    tags: list[str],
    agent: str,
    files: dict[str, str] | None,
    texts: Callable[[], list[str]],
) -> Encoder:
    """Load the tokenizer that the settings name, or make it from ``texts``; ``files``: one that was made before."""
    if config.processor is not None:
        raise MeshError("the data are texts", where="model.hf.processor", instead="leave it out: it is of images")
    if text.pack and head_of(task) != CAUSAL:
        raise MeshError("packed samples are for language modelling", where="text.pack", instead="pack: false")
    tokenizer = tokenizers.loads(files) if files is not None else tokenizers.for_model(config, texts, task)
    said = tokenizers.pad(tokenizer, config, task)
    embeds = config.bi_encoder is not None
    limit = text.max_length if config.max_length is None else min(config.max_length, text.max_length)
    made = Encoder(
        tokenizer, task, max_length=limit, over=text.over, tags=tags, agent=agent, pack=text.pack, embeds=embeds
    )
    made.notes += [said] if said else []
    if config.max_length is not None and config.max_length > limit:
        made.notes.append(f"reads {limit} tokens, as text.max_length says: its own max_length has no effect")
    return made
