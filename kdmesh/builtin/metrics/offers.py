"""The built-in metrics as offers: reading this imports no torch."""

from __future__ import annotations

from kdmesh.offers import MetricOffer

ROOM = "kdmesh.builtin.metrics"
METRICS = [
    MetricOffer(
        "accuracy",
        f"{ROOM}.accuracy:Accuracy",
        summary="share of rows whose likeliest class is their label",
        lowest=0.0,
        highest=1.0,
    ),
    MetricOffer(
        "loss",
        f"{ROOM}.loss:Loss",
        summary="cross-entropy of the labels, in nats, at temperature 1",
        paper="Good, Rational Decisions, 1952",
        higher=False,
        lowest=0.0,
    ),
    MetricOffer(
        "ece",
        f"{ROOM}.ece:ECE",
        summary="expected calibration error at temperature 1, 15 bins",
        paper="Guo et al., On Calibration of Modern Neural Networks, 2017",
        higher=False,
        lowest=0.0,
        highest=1.0,
    ),
    MetricOffer(
        "bits_per_character",
        f"{ROOM}.bits_per_character:BitsPerCharacter",
        summary="bits that a character of text costs at temperature 1, whatever the tokens",
        paper="Mikolov et al., Subword Language Modeling with Neural Networks, 2012",
        higher=False,
        lowest=0.0,
        needs=("characters",),
    ),
]
