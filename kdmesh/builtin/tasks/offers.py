"""The built-in tasks as offers: reading this imports no torch."""

from __future__ import annotations

from kdmesh.offers import TaskOffer

ROOM = "kdmesh.builtin.tasks"
TASKS = [
    TaskOffer(
        "classification",
        f"{ROOM}.classification:Classification",
        summary="a class of a sample",
        data=("numbers", "texts"),
        head="sequence",
    ),
    TaskOffer(
        "token_classification",
        f"{ROOM}.token_classification:TokenClassification",
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
