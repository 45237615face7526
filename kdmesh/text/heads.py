"""What transformers, its hub and peft call the kinds of model that answer for a text, a word, or the next token.

A model that answers for a text says in its configuration, as `problem_type`, what its answers are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from kdmesh.errors import MeshError
from kdmesh.plugins import registry


class Head(NamedTuple):
    """A kind of model. ``auto``: its class of transformers; ``pipeline``: the hub's name of what it is for.

    ``adapter``: peft's name of it; ``usage``: how to print an answer of a model of this kind, from its ``logits``;
    ``per``: what it has an answer for; ``known``: architectures that have one.
    """

    name: str
    auto: str
    pipeline: str
    adapter: str
    usage: str = ""
    per: Literal["samples", "units"] = "samples"
    known: str = "bert, roberta, llama, qwen2"


SEQUENCE = Head(
    "sequence",
    "AutoModelForSequenceClassification",
    "text-classification",
    "SEQ_CLS",
    "print(model.config.id2label[int(logits.argmax())])",
)
TOKEN = Head(
    "token",
    "AutoModelForTokenClassification",
    "token-classification",
    "TOKEN_CLS",
    "print([model.config.id2label[i] for i in logits[0].argmax(-1).tolist()])",
    "units",
)
CAUSAL = Head(
    "causal",
    "AutoModelForCausalLM",
    "text-generation",
    "CAUSAL_LM",
    "print(tokenizer.decode(logits[0, -1].argmax()))",
    "units",
)
SEQUENCES = CAUSAL._replace(
    auto="AutoModelForSeq2SeqLM", pipeline="text2text-generation", adapter="SEQ_2_SEQ_LM", known="t5, mt5, bart"
)
"""A language model of two parts, which is of head :data:`CAUSAL` all the same: only transformers tells them apart."""
CROSS = Head("cross_encoder", "AutoModelForSequenceClassification", "text-ranking", "SEQ_CLS")
BI = Head("bi_encoder", "AutoModel", "sentence-similarity", "FEATURE_EXTRACTION")
IMAGE = Head(
    "image",
    "AutoModelForImageClassification",
    "image-classification",
    "",
    "print(model.config.id2label[int(logits.argmax())])",
    known="vit, deit, dinov2, swin, convnext, resnet",
)
LISTS = (CROSS, BI)
"""Those that score the candidates of a query: both together, or by an embedding of each."""

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"
VALUES = "regression"  # a word of transformers, as the two above are
PROBLEMS = {"classes": SINGLE, "indicators": SEVERAL, "values": VALUES}
"""A model's `problem_type`, by the kind of labels that it learns."""

USAGE = {
    SEVERAL: "print([name for i, name in model.config.id2label.items() if logits[0, i] > 0])",
    VALUES: "print({name: float(logits[0, i]) for i, name in model.config.id2label.items()})",
}
"""How to print answers that are not those of :data:`SEQUENCE`, by `problem_type`."""

HEADS = {head.name: head for head in (SEQUENCE, TOKEN, CAUSAL)}


def head_of(task: str, embeds: bool = False) -> Head:
    """The kind of model that a task needs, by its offer; MeshError for a task that is not offered.

    ``embeds``: whether the model is to score candidates by embeddings; MeshError for a task without candidates.
    """
    name = registry().find("tasks", task, "task").head
    if name == "candidates":
        return BI if embeds else CROSS
    if embeds:
        instead = "leave it out, or a task that ranks candidates"
        raise MeshError(f"task {task} compares no embeddings", where="model.hf.bi_encoder", instead=instead)
    return HEADS[name]


def problem_of(task: str) -> str | None:
    """What transformers calls what a task asks of a text; None where it has no name for it."""
    offer = registry().find("tasks", task, "task")
    return PROBLEMS.get(offer.labels) if offer.head == SEQUENCE.name else None
