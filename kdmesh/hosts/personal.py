"""What a mesh says of personal data, made of what plugins offer, and applied to a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.recogniser import Entity, Recogniser
from kdmesh.errors import FAULTS, MeshError, nearest
from kdmesh.personal.changes import Pseudonyms, Replacing, redacted
from kdmesh.personal.entities import Finder, checked
from kdmesh.personal.key import key, needed
from kdmesh.personal.log import Log
from kdmesh.personal.profiles import PROFILES
from kdmesh.personal.treatment import Treatment, treated
from kdmesh.plugins import registry
from kdmesh.streams.texts import Texts

if TYPE_CHECKING:
    from kdmesh.spec.personal import PersonalSpec
    from kdmesh.streams.table import Table

WHERE = "data.personal"


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


def treatment(spec: PersonalSpec, where: str = WHERE) -> Treatment:
    """Make the recognisers, and what is done about what they find. MeshError for a kind that none of them finds."""
    profile = PROFILES[spec.profile].recognisers if spec.profile is not None else []
    plain = {one.name for one in spec.find if not one.config}
    asked: list[tuple[str, dict[str, Any], str]] = [
        (name, {}, f"{where}.profile") for name in profile if name not in plain
    ]
    asked += [(one.name, one.config, f"{where}.find.{number}") for number, one in enumerate(spec.find)]
    found: list[tuple[str, Recogniser]] = []
    kinds: set[str] = set()
    whole = True
    for name, config, at in asked:
        offer = registry().find("recognisers", name, at)
        registry().check("recognisers", name, config, at)
        found.append((name, Offered(name, offer.make(config), at)))
        own = {*offer.finds} or {getattr(offer.config.model_validate(config), "kind", "")}
        kinds |= own
        whole = whole and "" not in own
    if whole and spec.kinds is not None and (unknown := [one for one in spec.kinds if one not in kinds]):
        what = f"nothing that is looked for is of kind {unknown[0]!r}"
        raise MeshError(what, where=f"{where}.kinds", instead=nearest(unknown[0], sorted(kinds), "kinds"))
    finder = Finder(
        tuple(found),
        frozenset(one.casefold() for one in spec.allow),
        None if spec.kinds is None else frozenset(spec.kinds),
    )
    columns = None if spec.columns is None else frozenset(spec.columns)
    return Treatment(finder, _replacing(spec.action), columns)


def _replacing(action: str) -> Replacing | None:
    match action:
        case "redact":
            return redacted
        case "pseudonymise":
            return Pseudonyms(needed())
    return None


def without_personal(table: Table, spec: PersonalSpec, part: str = "") -> Table:
    """The table without what the mesh looks for, its log with it. ``part``: the party whose samples they are."""
    made = treatment(spec)
    for name in made.columns or ():
        if name not in table.columns:
            instead = nearest(name, table.columns, "columns")
            raise MeshError(f"no column {name!r}", where=f"{WHERE}.columns", instead=instead)
    if not isinstance(table.x, Texts) and (made.columns == frozenset() or not table.columns):
        what = "samples are numbers, and there is no column of texts to look at"
        raise MeshError(what, where=WHERE, instead="leave it out")
    log = Log(spec.action, key(), part)
    found, log.tally = treated(table, made, log.add)
    if not len(found):
        raise MeshError("every sample holds personal data", where=f"{WHERE}.action", instead="redact, or pseudonymise")
    return replace(found, personal=log, notes=[*found.notes, *log.told(), *_coverage(spec)])


def _coverage(spec: PersonalSpec) -> list[str]:
    """What a profile covers, and what not, for whoever reads `check`."""
    if spec.profile is None:
        return []
    profile = PROFILES[spec.profile]
    lines = [
        f"personal data: of {profile.source}, patterns look for {'; '.join(profile.covered())}",
        f"personal data: no built-in recogniser covers {'; '.join(profile.uncovered())}",
    ]
    return [*lines, "personal data: patterns miss some of what they look for (docs/personal.md says how much)"]
