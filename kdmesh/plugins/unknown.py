"""Names that nobody offers, or that cannot be used: who fails to provide one, and which was probably meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, nearest
from kdmesh.plugins.kinds import FACTORY, IMPORTED, NOUNS
from kdmesh.published import OFFERED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.plugins.record import PluginRecord


def refused(kind: str, name: str, offers: Mapping[str, Any], records: Sequence[PluginRecord], where: str) -> MeshError:
    """The error for a name that is none of the ``offers`` of a kind. ``records``: of all plugins."""
    claimed = [record for record in records if (kind, name) in record.claims]
    if claimed:
        return MeshError(
            f"the {NOUNS[kind]} {name!r} cannot be used: "
            + "; ".join(f"{record} is {record.status} ({record.error})" for record in claimed),
            where=where,
            instead="repair or uninstall a plugin, or set KDMESH_DISABLE_PLUGINS",
        )
    missing = [f"{record} did not load ({record.error})" for record in records if record.status == "broken"]
    missing += [f"{record} is disabled" for record in records if record.status == "disabled"]
    package = OFFERED.get((kind, name))
    if package is not None and package not in {record.dist for record in records}:
        missing.append(f"install {package}, which offers {name!r}")
    return MeshError(
        f"unknown {NOUNS[kind]} {name!r}",
        where=where,
        instead="; ".join([*_meant(kind, name, offers), nearest(name, offers, f"known {kind}"), *missing]),
    )


def _meant(kind: str, name: str, offers: Mapping[str, Any]) -> list[str]:
    """What an unknown name may be: a class without its colon, a file or a hub's id."""
    module, _, thing = name.rpartition(".")
    if ":" in name:
        what = "only models, data sets and filters are named by an import path"
        return [f"{what}; a plugin can offer {NOUNS[kind]} {name!r}"]
    if kind in IMPORTED and re.fullmatch(FACTORY, f"{module}:{thing}") and thing[:1].isupper():
        return [f"'{module}:{thing}', with a colon, for {thing} of the module {module}"]
    reading = [offer.name for offer in offers.values() if kind in IMPORTED and "path" in offer.config.model_fields]
    hubs = [other for other in reading if not getattr(offers[other], "fixed", False)]
    fits = [other for other in reading if name.endswith(f".{other}")] or (hubs if len(hubs) == 1 else [])
    return [f"a file, folder or hub id is a setting: {{{other}: {{path: {name!r}}}}}" for other in fits]
