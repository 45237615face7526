"""Small meshes and tables, of which contracts make their runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from kdmesh.contracts.filter import WrittenText
from kdmesh.plugins import registry
from kdmesh.spec import DEFAULT_TASK
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts

ROWS = 96
LABELS = {"classes": "ce", "values": "mse", "relevance": "info_nce", "indicators": "bce"}
"""The built-in loss of each kind of labels."""
BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
}
GPT: dict[str, Any] = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 64}


def task(labels: str = "classes", head: str = "") -> str:
    """The name of the built-in task of numbers with labels of a kind; with ``head``, of that one of texts alone."""
    for offer in registry().offers("tasks"):
        fits = offer.head == head if head else offer.labels == labels
        if offer.factory.startswith("kdmesh.") and fits and ("numbers" in offer.data) == (not head):
            return str(offer.name)
    raise LookupError(f"no built-in task of {labels} {head}")


def table(labels: str = "classes", shape: Sequence[int] = (6,), rows: int = ROWS) -> Table:
    """Samples ``[N, *shape]`` with labels of a kind: one of three classes, two values or three indicators.

    Each follows from a direction in which a sample lies. Of `relevance`, lists ``[N, 1 + 3, *shape]``: the candidate
    with the largest first number is relevant.
    """
    drawn = torch.Generator().manual_seed(5)
    if labels == "relevance":
        x = torch.randn(rows, 1 + 3, *shape, generator=drawn)
        first = x[:, 1:].flatten(2)[..., 0]
        return Table(x, (first == first.amax(1, keepdim=True)).float(), classes=0)
    x, directions = torch.randn(rows, *shape, generator=drawn), torch.randn(math.prod(shape), 3, generator=drawn)
    along = x.flatten(1) @ directions
    if labels == "values":
        return Table(x, along[:, :2].contiguous(), classes=0)
    if labels == "indicators":
        return Table(x, (along > 0).long(), classes=0)
    return Table(x, along.argmax(1), classes=3)


def texts(classes: bool = True, spans: bool = False, pairs: bool = False) -> Table:
    """Short texts, of two classes or of none; with ``spans``, the first word of each has a tag; with ``pairs``, each
    has another beside it that is rejected.
    """
    words = [f"{'abcde'[n % 5]} {'fgh'[n % 3]} {'xy'[n % 2]}" for n in range(48)]
    y = torch.arange(48) % 2 if classes else None
    tags = [((0, 1, "XY"[n % 2]),) if spans else None for n in range(48)]
    worse = [text[::-1] if pairs else None for text in words]
    samples = [Sample(text=one, spans=tag, rejected=two) for one, tag, two in zip(words, tags, worse, strict=True)]
    count = 2 if classes else 3 if spans else 0
    return Table(Texts(samples), y, classes=count, labels=["O", "X", "Y"] if spans else [])


def prompts() -> Table:
    """Sums of small numbers, as prompts with answers."""
    pairs = [(one, other) for one in range(7) for other in range(7)]
    samples = [Sample(text=f" {a + b} {a}", prompt=f"{a} and {b}:", at=f"{a} and {b}") for a, b in pairs]
    return Table(Texts(samples), None, classes=0)


def written(count: int) -> list[WrittenText]:
    """Answers to sums: right, wrong, cut off, repeated and empty ones."""
    found = []
    for at in range(count):
        right = f"it is {at}"
        said = [right, f"it is {at + 1}", "", f"it is it is it is it is {at}", f"{at}, I think, is what it is"][at % 5]
        found.append(WrittenText(at, 0, f"{at}+0=", said, len(said.split()), at % 3 > 0, right, at=f"sum {at}"))
    return found


def model(labels: str = "classes", shape: Sequence[int] = (6,), head: str = "") -> dict[str, Any]:
    """A small model of such samples. ``head``: of texts, its kind of model of transformers."""
    if head:
        config = GPT if head == "causal" else BERT
        return {"hf": {"config": config, "tokenizer": {"characters": {}}, "max_length": 32}}
    if labels == "relevance":
        return {"bi_encoder": {"hidden": [6]}}
    return {"cnn": {"width": 4, "depth": 1}} if len(shape) == 3 else {"mlp": {"hidden": [6]}}


def mesh(agents: Sequence[str], own: dict[str, Any], task: Any = DEFAULT_TASK, **more: Any) -> dict[str, Any]:
    """The fields of a mesh whose agents have a model each. It trains for one epoch, each agent on a host of its own."""
    return {
        "task": task,
        "data": {"dataset": "python:given"},
        "agents": {name: {"model": own} for name in agents},
        "train": {"epochs": 1, "batch_size": 16, "optimizer": {"sgd": {"lr": 0.1}}},
        "placement": "spread",
        **more,
    }


def task_of(data: Table) -> tuple[str, str, str]:
    """The built-in task that fits a table, the kind of its labels, and, of texts, the head that its models need."""
    if data.lists:
        return task("relevance"), "relevance", "candidates" if data.is_text else ""
    if data.is_text and data.y is None:
        return task(head="causal"), "classes", "causal"
    kind = data.kind or "classes"
    return task(kind), kind, "sequence" if data.is_text else ""


def compared(labels: str) -> dict[str, Any]:
    """How answers about such labels are compared: settings of a strategy; none where the default does."""
    return {"values": {"objective": "mse"}, "indicators": {"objective": "binary_kl"}}.get(labels, {})
