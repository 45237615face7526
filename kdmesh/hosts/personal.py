"""The table of a mesh without the personal data that it looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.personal.key import key
from kdmesh.personal.log import Log
from kdmesh.personal.profiles import PROFILES
from kdmesh.personal.treatment import treated
from kdmesh.streams.texts import Texts
from kdmesh.text.recognised import treatment

if TYPE_CHECKING:
    from kdmesh.personal.treatment import Treatment
    from kdmesh.spec.personal import PersonalSpec
    from kdmesh.streams.table import Table

WHERE = "data.personal"


def without_personal(table: Table, spec: PersonalSpec, part: str = "") -> Table:
    """The table without what the mesh looks for, its log with it. ``part``: the party whose samples they are."""
    made = treatment(spec, WHERE)
    known = [*table.columns, *(table.cells.columns if table.cells is not None else ())]
    for name in made.columns or ():
        if name not in known:
            instead = nearest(name, known, "columns")
            raise MeshError(f"no column {name!r}", where=f"{WHERE}.columns", instead=instead)
    if not isinstance(table.x, Texts) and (made.columns == frozenset() or not known):
        what = "samples are numbers, and there is no column of texts to look at"
        raise MeshError(what, where=WHERE, instead="leave it out")
    _refuse_names(table, made)
    log = Log(spec.action, key(), part)
    found, log.tally = treated(table, made, log.add)
    if not len(found):
        raise MeshError("every sample holds personal data", where=f"{WHERE}.action", instead="redact, or pseudonymise")
    return replace(found, personal=log, notes=[*found.notes, *log.told(), *_coverage(spec)])


def _refuse_names(table: Table, made: Treatment) -> None:
    """Names of classes stand in figures and pages: MeshError where one holds personal data."""
    found = made.finder.find(table.labels)
    if parts := next((own for own in found if own), None):
        count = sum(map(bool, found))
        what = f"{'a class' if count == 1 else f'{count:,} classes'} of {len(found):,} has personal data in its name"
        what = f"{what} ({', '.join(sorted({one.kind for one in parts}))}), which figures and pages would say"
        raise MeshError(what, where=WHERE, instead="classes that are called otherwise; `allow`, if it is none")


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
