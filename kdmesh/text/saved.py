"""An agent's folder read again: texts in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import dense
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text import images
from kdmesh.text.build import build
from kdmesh.text.encoder import Encoder
from kdmesh.text.heads import CAUSAL, LISTS, TOKEN, head_of
from kdmesh.text.peft import with_prefix
from kdmesh.text.settings import BiEncoderSettings, HfConfig
from kdmesh.text.source import in_two_parts
from kdmesh.text.tokenizers import read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


ATTENTION = ("sdpa", "eager")  # those of transformers; any other name is of a kernel, which the hub would be asked for
CLASSES = 1_000_000  # transformers names each

AS_READ = ("dtype", "config", "layers", "label_map")
"""Settings that make another model of the weights that are read."""


class Saved(nn.Module):
    """A model and its tokenizer. ``model.net`` is the model of transformers, ``tokenizer`` its tokenizer."""

    def __init__(self, model: Any, encoder: Encoder) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder
        self.tokenizer = encoder.tokenizer

    def forward(self, texts: str | Sequence[str | Sample]) -> Tensor:
        """Return logits: ``[B, C]`` of classes, or a row per unit, one text's after the other's; no text, no row.

        Units are words to tag, or the tokens that a language model is to predict. Of queries, samples with
        ``candidates``, it returns scores ``[B, L]``, L those of the longest list; ``-inf`` where one is shorter.
        """
        every = [texts] if isinstance(texts, str) else texts
        tagged = () if self.encoder.head == TOKEN else None
        samples = [one if isinstance(one, Sample) else Sample(one, spans=tagged) for one in every]
        none, listed = not samples, self.encoder.head in LISTS
        samples = samples or [Sample("a", spans=tagged, candidates=("a",) if listed else None)]
        encoded, _ = self.encoder.encode(Texts(samples))
        if listed:
            self.model.classes = max(len(one.candidates or ()) for one in samples)
        logits = dense(self.model(encoded.whole().to(next(self.model.parameters()).device)))
        return logits[:0] if none else logits


def load_saved(root: Path, config: dict[str, Any], source: Path | None = None) -> Saved:
    """Read a folder that a run wrote; ``config`` is its ``kdmesh.json``. Weights keep the type they were saved in.

    ``source``: the folder that the run read the weights from, where this one only refers to them; they are then read
    with the settings that the run had.
    """
    settings = config["model"]
    if not isinstance(settings, dict) or not isinstance(settings.get("hf"), dict):
        raise MeshError("this folder holds no model of transformers", file=str(root), where="model")
    task, labels, own = config["task"], config["labels"] or None, settings["hf"]
    if own.get("attention", "sdpa") not in ATTENTION:
        raise MeshError(
            f"found {own['attention']!r}", file=str(root), where="model.hf.attention", instead=" or ".join(ATTENTION)
        )
    if head_of(task) != CAUSAL and config["classes"] > CLASSES:
        what = f"found {config['classes']:,} classes"
        raise MeshError(what, file=str(root), where="classes", instead=f"at most {CLASSES:,}")
    tokenizer = read(str(root))
    limit = config["max_length"] or own.get("max_length")  # what the run let it read, which may be less
    told = own.get("bi_encoder")
    embeds = None if told is None else BiEncoderSettings.model_validate(told)
    two_parts = head_of(task) == CAUSAL and in_two_parts(str(source or root), None, False, {})
    encoder = Encoder(
        tokenizer, task, max_length=limit, tags=labels or (), embeds=embeds is not None, two_parts=two_parts
    )
    model: Any = build(
        task=task,
        classes=config["classes"],
        labels=labels,
        path=str(source or root),
        attention=own.get("attention", "sdpa"),
        max_length=limit,
        bi_encoder=embeds,
        **(
            {"dtype": "auto", "whole": True} if source is None else {name: own[name] for name in AS_READ if name in own}
        ),
        **encoder.facts,
    )
    if config.get("adapted") == "prefix":
        model.net = with_prefix(model.net, root)
    return Saved(model, encoder).eval()


def load_images(root: Path, config: dict[str, Any]) -> nn.Module:
    """The same of a model of images, whose folder has its processor too."""
    settings = config["model"]
    if not isinstance(settings, dict) or not isinstance(settings.get("hf"), dict):
        raise MeshError("this folder holds no model of transformers", file=str(root), where="model")
    attention = settings["hf"].get("attention", "sdpa")
    if attention not in ATTENTION:
        raise MeshError(f"found {attention!r}", file=str(root), where="model.hf.attention", instead="sdpa or eager")
    return images.build(
        HfConfig(path=str(root), attention=attention),
        task=config["task"],
        input_shape=config["input_shape"],
        classes=config["classes"],
        labels=config["labels"] or [],
        whole=True,
    ).eval()
