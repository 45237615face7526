"""A consensus of several producers' answers, outside a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.hosts.consensus import probabilities
from kdmesh.plugins import registry
from kdmesh.signals.lazy import Lazy, dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdmesh.offers import ConsensusOffer

SPACES = ("probs", "logits")
MORE = {
    "needs_labels": "labels",
    "needs_errors": "errors on validation",
    "needs_column": "a column of the data",
    "needs": "what only a mesh knows",
    "inputs": "other signals",
    "trained": "weights that are trained",
    "stateful": "a state that a run moves",
    "releases": "the privacy account of a party",
    "abstains": "a place for samples that it does not answer",
}
"""What rules ask for beside their sources' answers, by trait of their offers."""


class Combining:
    """A rule and where it combines: ``temperature`` that of the loss that reads it, ``space`` probs or logits."""

    def __init__(self, told: Any, names: Sequence[str], classes: int, temperature: float | None, space: str) -> None:
        if space not in SPACES:
            raise MeshError(f"found {space!r}", where="space", instead=" or ".join(SPACES))
        if space == "probs" and temperature is None:
            what = "a rule combines probabilities at a temperature, which is that of the loss"
            raise MeshError(what, where="temperature", instead="temperature=, or space='logits'")
        self.temperature = 1.0 if temperature is None else float(temperature)
        if not 0 < self.temperature < float("inf"):
            raise MeshError(f"found {temperature!r}", where="temperature", instead="a positive number")
        self.space, self.rule = space, _rule(told)
        self.rule.space, self.rule.temperature = space, self.temperature
        self.rule.setup(tuple(names), classes, ())
        self.rule.eval()

    @torch.no_grad()
    def __call__(self, answers: Sequence[Tensor | Lazy]) -> Tensor:
        """Combine the sources' logits, ``[N, C]`` each."""
        shapes = {tuple(one.shape) for one in answers}
        if len(shapes) > 1:
            listed = ", ".join(map(str, sorted(shapes)))
            raise MeshError(f"the producers' answers differ in shape: {listed}", where="rule", instead="equal columns")
        logits = torch.stack([dense(one) for one in answers])
        value: Tensor = self.rule(probabilities(logits, self.space, self.temperature), logits=logits)
        return value


def _rule(told: Any) -> Any:
    """A rule by name, by name with settings, or itself. MeshError for one that asks for more than answers."""
    if isinstance(told, nn.Module):
        kind = f"{type(told).__module__}:{type(told).__qualname__}"
        offers: list[ConsensusOffer] = registry().offers("consensus")
        offer = next((one for one in offers if one.load() is type(told)), None) if kind.startswith("kdmesh") else None
        _refuse(offer, told)
        return told
    match told:
        case str(name):
            config: dict[str, Any] = {}
        case Mapping() if len(told) == 1:
            ((name, settings),) = told.items()
            config = dict(settings or {})
        case _:
            what = f"found {type(told).__name__}"
            raise MeshError(what, where="rule", instead="'median', {'trimmed_mean': {'trim': 1}}, or a rule of Python")
    offer = registry().find("consensus", name, "rule")
    _refuse(offer, None)
    return offer.make(registry().check("consensus", name, config, "rule").model_dump())


def _refuse(offer: ConsensusOffer | None, rule: nn.Module | None) -> None:
    asked = next((word for trait, word in MORE.items() if offer is not None and getattr(offer, trait)), "")
    if not asked and rule is not None and rule.state_dict():
        asked = MORE["stateful"]
    if asked:
        name = offer.name if offer is not None else type(rule).__name__
        instead = "another rule; without one, items have the answers by producer, for a loop to combine"
        raise MeshError(f"{name} needs {asked}", where="rule", instead=instead)
