"""What finds personal data, made of what plugins offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.errors import FAULTS, MeshError, nearest
from kdmesh.personal.changes import Pseudonyms, Replacing, redacted
from kdmesh.personal.entities import Finder, checked
from kdmesh.personal.key import needed
from kdmesh.personal.profiles import PROFILES
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from kdmesh.personal.treatment import Treatment
    from kdmesh.spec.base import RecogniserRef
    from kdmesh.spec.personal import PersonalSpec


@dataclass(frozen=True)
class Offered(Recogniser):
    """A recogniser that a plugin offers: what it raises, or gives that is no entity, is that plugin's fault."""

    name: str
    made: Recogniser
    where: str

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """What it finds."""
        try:
            return checked(self.made.find(texts), texts, self.name)
        except FAULTS as error:
            registry().attribute_error("recognisers", self.name, error, "to look at texts", self.where)


def finder(
    profile: str | None, find: Sequence[RecogniserRef], kinds: Sequence[str] | None, allow: Sequence[str], where: str
) -> Finder:
    """Make the recognisers of a profile, and others. MeshError, below ``where``, for a kind that none of them finds."""
    names = PROFILES[profile].recognisers if profile is not None else []
    plain = {one.name for one in find if not one.config}
    asked: list[tuple[str, dict[str, Any], str]] = [
        (name, {}, _at(where, "profile")) for name in names if name not in plain
    ]
    asked += [(one.name, one.config, _at(where, f"find.{number}")) for number, one in enumerate(find)]
    found: list[tuple[str, Recogniser]] = []
    known: set[str] = set()
    whole = True
    for name, config, at in asked:
        offer = registry().find("recognisers", name, at)
        registry().check("recognisers", name, config, at)
        found.append((name, Offered(name, offer.make(config), at)))
        own = {*offer.finds} or {getattr(offer.config.model_validate(config), "kind", "")}
        known |= own
        whole = whole and "" not in own
    if whole and kinds is not None and (unknown := [one for one in kinds if one not in known]):
        what = f"nothing that is looked for is of kind {unknown[0]!r}"
        raise MeshError(what, where=_at(where, "kinds"), instead=nearest(unknown[0], sorted(known), "kinds"))
    return Finder(tuple(found), frozenset(one.casefold() for one in allow), None if kinds is None else frozenset(kinds))


def treatment(spec: PersonalSpec, where: str) -> Treatment:
    """Make the recognisers, and what is done about what they find."""
    from kdmesh.personal.treatment import Treatment  # which needs torch, as filters do not

    columns = None if spec.columns is None else frozenset(spec.columns)
    found = finder(spec.profile, spec.find, spec.kinds, spec.allow, where)
    return Treatment(found, _replacing(spec.action), columns)


def _replacing(action: str) -> Replacing | None:
    match action:
        case "redact":
            return redacted
        case "pseudonymise":
            return Pseudonyms(needed())
    return None


def _at(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field
