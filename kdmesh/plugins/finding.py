"""What the loaded plugins offer, found by kind and name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from kdmesh.errors import MeshError, RunFailed, line_of, stopped, text_of
from kdmesh.plugins.kinds import NOUNS
from kdmesh.plugins.loading import Loaded
from kdmesh.plugins.unknown import refused
from kdmesh.spec.explain import explain
from kdmesh.spec.numbers import refuse_odd_values

if TYPE_CHECKING:
    from kdmesh.plugins.record import PluginRecord


class Registry(Loaded):
    """Everything that the loaded plugins offer. Lives in the driver; workers resolve factories by import string."""

    def names(self, kind: str) -> list[str]:
        """Every offered name of a kind, sorted."""
        return list(self._offers[kind])

    def offers(self, kind: str) -> list[Any]:
        """Every offer of a kind, sorted by name."""
        return list(self._offers[kind].values())

    def find(self, kind: str, name: str, where: str = "") -> Any:
        """Return one offer, or say which plugin fails to provide it, or which name was probably meant."""
        if name not in self._offers[kind]:
            raise refused(kind, name, self._offers[kind], self.records, where)
        return self._offers[kind][name]

    def check(self, kind: str, name: str, config: dict[str, Any], where: str = "") -> Any:
        """Validate a configuration and return it as the offer's pydantic model; ``where``: the path of the name."""
        offer, place = self.find(kind, name, where), f"{where}.{name}" if where else name
        refuse_odd_values(config, offer.config, where=place)
        try:
            return offer.config.model_validate(config)
        except ValidationError as error:
            raise explain(error, offer.config, where=place, data=config) from None

    def origin(self, kind: str, name: str) -> PluginRecord | None:
        """Return the plugin that an offer in use comes from, None for a built-in one."""
        offer = self.find(kind, name)
        return next((record for record in self.records if record.claims.get((kind, name)) is offer), None)

    def attribute_error(self, kind: str, name: str, error: BaseException, doing: str, where: str) -> NoReturn:
        """Raise RunFailed, which says whose code raised ``error`` and what it was ``doing``; MeshError as it is."""
        if isinstance(error, MeshError) or stopped(error):
            raise error
        record, what = self.origin(kind, name), f"{text_of(error)}{line_of(error)}"
        raise RunFailed(
            f"the {NOUNS[kind]} {name!r} of {record or 'kdmesh'} failed {doing}: {what}",
            where=where,
            instead="another one, or report this to its author" if record else "",
        ) from error

    def theirs(self, kind: str, name: str) -> str:
        """An offer of a plugin with whose it is, `the model 'net' of kdmesh-x 0.1.0`; "" of a built-in one."""
        record = self.origin(kind, name)
        return f"the {NOUNS[kind]} {name!r} of {record}" if record else ""
