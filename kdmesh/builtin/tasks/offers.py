"""The built-in tasks as offers: reading this imports no torch."""

from __future__ import annotations

from pydantic import Field

from kdmesh.builtin.objectives.offers import ClassWeights
from kdmesh.offers import Config, TaskOffer


class ClassesConfig(Config):
    """Settings of tasks that learn classes: those of their loss of labels."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of a label spread evenly over all classes")
    class_weights: ClassWeights | None = Field(
        None,
        description="how much a sample counts, by its class, in the order that `check` prints; or balanced: the "
        "inverse of its share of what is learned",
    )


ROOM = "kdmesh.builtin.tasks"
TASKS = [
    TaskOffer(
        "classification",
        f"{ROOM}.classification:Classification",
        ClassesConfig,
        summary="a class of a sample",
        data=("numbers", "texts"),
        head="sequence",
    ),
    TaskOffer(
        "regression",
        f"{ROOM}.regression:Regression",
        summary="one value of a sample, or several",
        data=("numbers", "texts"),
        labels="values",
        head="sequence",
        objective="mse",
        metrics=("r2", "mse", "mae"),
        primary="r2",
        watched=("mse", "mae"),
        spaces=("logits", "loss", "gradient"),
        decides=False,
    ),
    TaskOffer(
        "multi_label",
        f"{ROOM}.multi_label:MultiLabel",
        summary="several labels of a sample, each of which holds or not",
        paper="Tsoumakas and Katakis, Multi-Label Classification: An Overview, 2007",
        data=("numbers", "texts"),
        labels="indicators",
        head="sequence",
        objective="bce",
        metrics=("mean_average_precision", "loss", "micro_f1", "macro_f1"),
        primary="mean_average_precision",
        watched=("loss", "mean_average_precision"),
        spaces=("marginals", "logits", "loss", "gradient"),
    ),
    TaskOffer(
        "ranking",
        f"{ROOM}.ranking:Ranking",
        summary="the order of a query's candidates",
        paper="Cao et al., Learning to Rank: From Pairwise Approach to Listwise Approach, 2007",
        data=("numbers", "texts"),
        labels="relevance",
        head="candidates",
        objective="info_nce",
        metrics=("ndcg", "mrr", "recall_at_k"),
        primary="ndcg",
        watched=("ndcg", "mrr"),
    ),
    TaskOffer(
        "token_classification",
        f"{ROOM}.token_classification:TokenClassification",
        ClassesConfig,
        summary="a tag of a word",
        paper="Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003",
        data=("texts",),
        rows="units",
        source="spans",
        head="token",
    ),
    TaskOffer(
        "language_modelling",
        f"{ROOM}.language_modelling:LanguageModelling",
        summary="the next token",
        paper="Bengio et al., A Neural Probabilistic Language Model, 2003",
        data=("texts",),
        rows="units",
        source="tokens",
        outputs="vocabulary",
        head="causal",
        metrics=("accuracy", "loss", "ece", "bits_per_character"),
        primary="bits_per_character",
    ),
]
