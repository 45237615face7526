"""Where licences are known from: declared, on a card, or recorded in a folder that kdmesh wrote. Files alone are read.

What weights learned from comes along in their folder, so that a teacher which was a student brings its own terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kdmesh.contracts.run_files import MANIFEST, STREAMS
from kdmesh.errors import MeshError
from kdmesh.files import CONFIG, OURS, read_json
from kdmesh.graph.looked_up import lookup
from kdmesh.graph.served import is_served
from kdmesh.licences.cards import card_of
from kdmesh.licences.judging import Source
from kdmesh.licences.names import Named, named
from kdmesh.plugins import registry
from kdmesh.spec.paths import PATHS

if TYPE_CHECKING:
    from collections.abc import Collection

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import ModelRef

FIELD = "licences"
"""Where an agent's folder, a run's manifest and an export have what is known of licences."""

OWN = "own"
"""Declared of what is one's own: nothing is to be asked."""

COMPUTED = "none: computed"
"""What data sets say that are made of nothing."""

UNREAD = "the data set is not read yet"
ALONG = "by way of "
LOCAL = ("127.0.0.1", "::1", "localhost")
NO_CARD = "it is not declared, and no card states one"


@dataclass(frozen=True)
class Known:
    """Something that is learned from. ``kind``: teacher, weights, endpoint, data, texts or store; ``where``: from where
    its licence is known; ``at``: where in the mesh it would be declared; ``own``: it is one's own.
    """

    name: str
    kind: str
    licence: Named
    where: str = ""
    at: str = ""
    own: bool = False

    @property
    def source(self) -> Source:
        """As it is judged."""
        return Source(self.name, self.kind, self.licence)

    def record(self) -> dict[str, Any]:
        """As it comes along with whatever learned from it: no path of this machine."""
        return {
            "name": self.name,
            "kind": self.kind,
            "licence": OWN if self.own else self.licence.written,
            "expression": self.licence.expression,
            "from": self.where,
        }


def recorded(found: Any, by: str, at: str) -> list[Known]:
    """Records of a file, as what came along ``by`` something; those that are none are left out."""
    many = []
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict):
            where = str(one.get("from") or "not said")
            where = where if where.startswith(ALONG) else f"{ALONG}{by}: {where}"
            many.append(known(str(one.get("name", "?")), str(one.get("kind")), str(one.get("licence", "")), where, at))
    return many


def known(name: str, kind: str, written: str, where: str, at: str, why: str = "") -> Known:
    """Something by what is ``written`` of its licence; ``why`` that is unknown, where nothing is."""
    own = written.strip().casefold() == OWN or written == COMPUTED
    licence = Named(written, "", why) if own or (why and not written) else named(written)
    return Known(name, kind, licence, where, at, own)


def begun(plan: Plan, owner: str, given: Collection[str], marks: list[str]) -> list[Known]:
    """What an agent brings with it: its weights' licence, what is recorded of them, the terms of an endpoint."""
    spec = plan.spec.agents[owner]
    at = plan.at(f"agents.{owner}.licence")
    if is_served(spec.model, registry()):
        assert spec.model is not None
        return _served(owner, spec.model, spec.licence, at)
    if lookup(spec.model, registry()):
        why = "the store does not say it: declare it"
        return [known(owner, "store", spec.licence or "", at if spec.licence else "", at, why)]
    kind = "teacher"
    folder = _folder(spec.weights, spec.model)
    if folder is not None:
        return _from_folder(owner, folder, spec.licence, at, marks)
    if spec.licence is not None:
        if spec.model is not None and not spec.model.is_import and owner not in given and not _on_hub(spec.model):
            what = f"{owner} begins with weights that are drawn here, of which there is no licence"
            raise MeshError(what, where=at, instead="leave it out")
        return [known(owner, kind, spec.licence, at, at)]
    if owner in given or (spec.model is not None and spec.model.is_import):
        if spec.update != "frozen":
            return []  # it begins here, as far as is known
        return [known(owner, kind, "", "", at, "its code does not say it: declare it")]
    if spec.model is not None and _on_hub(spec.model):
        return [known(owner, kind, "", "", at, "its card is on a hub: declare it")]
    return []


def _on_hub(model: ModelRef) -> bool:
    """Whether a model's weights are those of a library: by a name that is no folder, or by a switch."""
    config = model.config
    return isinstance(config.get("path"), str) or any(config.get(one) for one in ("pretrained", "weights"))


def _folder(weights: str | None, model: ModelRef | None) -> Path | None:
    """The folder that says what weights are: that of their file, or the one that a model is read from."""
    if weights is not None:
        return Path(weights).expanduser().parent
    path = None if model is None else model.config.get("path")
    if not isinstance(path, str):
        return None
    place = Path(path).expanduser()
    return place if place.is_dir() else place.parent if place.is_file() else None


def _from_folder(owner: str, folder: Path, declared: str | None, at: str, marks: list[str]) -> list[Known]:
    """What a folder says, and what is declared of it; where both do and they differ, that is marked."""
    config = next((one for name in (OURS, CONFIG) if (one := read_json(folder / name)) and "kdmesh" in one), None)
    came = None if config is None else config.get(FIELD)
    along = recorded(came.get("sources"), f"the weights of {owner}", at) if isinstance(came, dict) else []
    card = card_of(folder)
    stated = card.licence if card is not None and config is None else ""
    if declared is not None:
        _compare(owner, declared, stated, at, marks)
        return [known(owner, "teacher", declared, at, at), *along]
    if isinstance(came, dict):
        return along  # trained by kdmesh: nobody but who trained it can license it, and what is in it is known
    if config is not None:
        why = "kdmesh trained it before it kept licences: declare it"
        return [known(owner, "teacher", "", "", at, why)]
    return [known(owner, "teacher", stated, f"{folder.name}/README.md" if stated else "", at, NO_CARD)]


def _served(owner: str, model: ModelRef, licence: str | None, at: str) -> list[Known]:
    """Of an endpoint its terms, and the licence of the model that is served, where that is declared."""
    terms, url = model.config.get("terms"), str(model.config.get("base_url", ""))
    here = urlsplit(url).hostname in LOCAL
    its = f"{at.removesuffix('.licence')}.model.{model.name}.terms"
    found = [known(owner, "teacher", licence, at, at)] if licence is not None else []
    if terms is not None or (not here and licence != OWN):
        why = "the terms of its service are not declared"
        found.append(known(owner, "endpoint", str(terms or ""), its if terms else "", its, why))
    if not found:
        found.append(known(owner, "endpoint", "", "", at, "the licence of the model that is served is not declared"))
    return found


def data_of(plan: Plan, read: str | None, marks: list[str]) -> dict[str, list[Known]]:
    """By party, "" for the mesh's own: the data set, and whose texts it has."""
    spec = plan.spec.data
    sets: dict[str, list[Known]] = {"": []}
    if spec is not None:
        sets[""] = _set(spec.dataset.name, spec.dataset.config, spec.licence, "data", read, marks)
    elif read is not None:
        sets[""] = [known("given from Python", "data", "", "", "data.licence", "it was given from Python")]
    for name, party in plan.spec.parties.items():
        if party.data is not None:
            ref = party.data
            sets[name] = _set(f"{ref.name} of {name}", ref.config, party.licence, f"parties.{name}", None, marks)
    return sets


def _set(
    name: str, config: dict[str, Any], declared: str | None, where: str, read: str | None, marks: list[str]
) -> list[Known]:
    at, its = f"{where}.licence", config.get("licence")
    place = next((Path(config[one]).expanduser() for one in PATHS if isinstance(config.get(one), str)), None)
    folder = None if place is None else place if place.is_dir() else place.parent
    name = place.name if place is not None else name
    card = None if folder is None else card_of(folder)
    if declared is not None and isinstance(its, str) and named(declared).expression != named(its).expression:
        what = f"`{at}` says {declared!r}, and the data set's own setting {its!r}"
        raise MeshError(what, where=at, instead="one of them")
    said = declared if declared is not None else its if isinstance(its, str) else None
    if said is not None:
        _compare(name, said, "" if card is None else card.licence, at, marks)
        return [known(name, "data", said, at if declared is not None else f"{where}.dataset", at)]
    along = _written(place, name, at)
    if along is not None:
        return along
    if card is not None and card.licence:
        return [known(name, "data", card.licence, f"{(folder or Path()).name}/README.md", at)]
    stated = "" if read in (None, "not stated") else str(read)
    why = UNREAD if read is None and folder is None else NO_CARD
    return [known(name, "data", stated, "the data set" if stated else "", at, why)]


def _written(place: Path | None, name: str, at: str) -> list[Known] | None:
    """Of texts that agents wrote in a run: what is in these, by the run's manifest; None of any other file."""
    if place is None or place.parent.name != STREAMS:
        return None
    manifest = read_json(place.parent.parent / MANIFEST)
    if manifest is None:
        return None
    kept = manifest.get(FIELD)
    streams = kept.get("streams") if isinstance(kept, dict) else None
    if not isinstance(streams, dict) or place.stem not in streams:
        return [known(name, "texts", "", "", at, "its run kept no licences")]
    return recorded(streams[place.stem], f"texts in {name}", at)


def _compare(name: str, declared: str, stated: str, at: str, marks: list[str]) -> None:
    """Mark a licence that is declared, and is not what the card states."""
    one, other = named(declared), named(stated)
    if stated and declared.casefold() != OWN and other.expression and one.expression != other.expression:
        marks.append(f"licences: {name} is declared as {declared!r} at {at}, and its card states {stated!r}")
