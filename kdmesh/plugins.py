"""Load plugins, each alone, and find what they offer by kind and name."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import ValidationError

from kdmesh import hookspecs
from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.offers import Offer

KINDS = ("strategies", "objectives", "consensus", "models", "datasets", "views")
NOUNS = {
    "strategies": "strategy",
    "objectives": "objective",
    "consensus": "consensus rule",
    "models": "model",
    "datasets": "data set",
    "views": "view",
}


class Registry:
    """Everything that the loaded plugins offer. Lives in the driver; workers resolve factories by import string."""

    def __init__(self, plugins: Iterable[Any]) -> None:
        self.manager = pluggy.PluginManager("kdmesh")
        self.manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            self.manager.register(plugin)
        self.manager.check_pending()
        self._offers: dict[str, dict[str, Offer]] = {kind: self._collect(kind) for kind in KINDS}

    def _collect(self, kind: str) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        for offers in getattr(self.manager.hook, f"kdmesh_{kind}")():
            for offer in offers:
                if offer.name in found:
                    raise MeshError(f"two plugins offer the {NOUNS[kind]} {offer.name!r}", where="plugins")
                found[offer.name] = offer
        return dict(sorted(found.items()))

    def names(self, kind: str) -> list[str]:
        """Every offered name of a kind, sorted."""
        return list(self._offers[kind])

    def offers(self, kind: str) -> list[Any]:
        """Every offer of a kind, sorted by name."""
        return list(self._offers[kind].values())

    def find(self, kind: str, name: str, where: str = "") -> Any:
        """Return one offer, or say which name was probably meant."""
        try:
            return self._offers[kind][name]
        except KeyError:
            known = self.names(kind)
            raise MeshError(
                f"unknown {NOUNS[kind]} {name!r}", where=where, instead=nearest(name, known, f"known {kind}")
            ) from None

    def check(self, kind: str, name: str, config: dict[str, Any], where: str = "") -> Any:
        """Validate a configuration and return it as the offer's pydantic model; ``where``: the path of the name."""
        offer = self.find(kind, name, where)
        try:
            return offer.config.model_validate(config)
        except ValidationError as error:
            from kdmesh.spec.read import explain

            raise explain(error, offer.config, where=f"{where}.{name}" if where else name) from None


@cache
def registry() -> Registry:
    """The registry of this process: the built-ins and every installed plugin."""
    from kdmesh.builtin import plugin as builtin

    return Registry([builtin])
