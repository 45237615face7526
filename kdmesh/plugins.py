"""Load plugins, each alone, and find what they offer by kind and name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import ValidationError

from kdmesh import hookspecs
from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

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


@dataclass(frozen=True)
class PluginRecord:
    """What became of one installed plugin; ``error`` is empty for one that loaded."""

    name: str
    dist: str
    version: str
    error: str = ""


class Registry:
    """Everything that the loaded plugins offer. Lives in the driver; workers resolve factories by import string."""

    def __init__(self, plugins: Iterable[Any], installed: Iterable[EntryPoint] = ()) -> None:
        """``plugins`` must load; of the ``installed`` a broken one is recorded and left out, and harms nobody else."""
        self.manager = pluggy.PluginManager("kdmesh")
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        for plugin in plugins:
            self.manager.register(plugin)
        self.manager.check_pending()
        for entry in installed:
            self.records.append(self._load(entry))
        self._offers: dict[str, dict[str, Offer]] = {kind: self._collect(kind) for kind in KINDS}

    def _load(self, entry: EntryPoint) -> PluginRecord:
        """Load one entry point, alone."""
        dist = entry.dist.name if entry.dist is not None else "?"
        version = entry.dist.version if entry.dist is not None else "?"
        plugin = None
        try:
            plugin = entry.load()
            self.manager.register(plugin, name=entry.name)
            self.manager.check_pending()  # turns a misspelt hook into an error
        except Exception as error:
            if plugin is not None and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)  # registering can fail half-way
            return PluginRecord(entry.name, dist, version, f"{type(error).__name__}: {error}")
        return PluginRecord(entry.name, dist, version)

    def _broken(self) -> str:
        """What to add to an unknown name: a plugin that did not load may have offered it."""
        broken = [
            f"{record.dist} {record.version} did not load ({record.error})" for record in self.records if record.error
        ]
        return "; ".join(["", *broken])

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
                f"unknown {NOUNS[kind]} {name!r}",
                where=where,
                instead=nearest(name, known, f"known {kind}") + self._broken(),
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

    return Registry([builtin], entry_points(group="kdmesh"))
