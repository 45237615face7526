"""What the built-in kinds of signal are called; imports none of them."""

from __future__ import annotations

from kdmesh.offers import SignalOffer

SIGNALS = [
    SignalOffer("logits", "kdmesh.builtin.signals.plain:Plain", summary="a model's outputs", form="logits"),
    SignalOffer(
        "hidden",
        "kdmesh.builtin.signals.plain:Plain",
        summary="the output of the layer that `tap` names",
        reads="hidden",
        form="hidden",
    ),
    SignalOffer(
        "votes",
        "kdmesh.builtin.signals.votes:Votes",
        summary="the likeliest class alone: nothing else leaves the agent's host",
        paper="Papernot et al., Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data, 2017",
    ),
]
