"""Lay ``path.to.field=value`` over a file's data, before it is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_origin

from kdmesh.errors import MeshError, nearest
from kdmesh.spec.annotations import below, is_model
from kdmesh.spec.base import Named
from kdmesh.spec.mesh import MeshSpec
from kdmesh.spec.yaml12 import load

if TYPE_CHECKING:
    from collections.abc import Sequence


def apply(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``data`` with overrides laid over it, from the first to the last.

    An override is ``path.to.field=value``. Its value is YAML. Its path steps through mappings by name and through lists
    by index (``flows.0.weight``); names with dots are matched whole where they exist. Sections that are missing are
    made; list entries, what users name (agents, streams ...) and another choice beside the one made never are. A name
    without settings opens when the path goes into it: ``objective: kl`` with ``objective.kl.temperature=2`` becomes
    ``{kl: {temperature: 2}}``. Raises MeshError with the path as ``where``.
    """
    data = _copy(data)
    for override in overrides:
        _set(data, override)
    return data


def _copy(value: Any) -> Any:
    """Copy without keeping aliases: changing one place of a YAML anchor must not change the others."""
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _set(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    where = f"--set {path.strip()}"
    if not equals or not all(parts):
        raise MeshError(f"cannot read {override!r}", where="--set", instead="path.to.field=value")
    value = load(text, where=where)
    here: Any = data
    kinds: list[Any] = [MeshSpec]  # what the file's models allow where the path has come to
    done: tuple[str, ...] = ()
    while True:
        key, size = _step(here, parts, done, where)
        _refuse_new(here, key, kinds, done, parts[size:], where)
        kinds = [inner for kind in kinds for inner in below(kind, key)]
        done, parts = (*done, *parts[:size]), parts[size:]
        if not parts:
            here[key] = value
            return
        here[key] = here = _open(here[key] if isinstance(here, list) else here.get(key), parts, done, where)


def _refuse_new(here: Any, key: Any, kinds: list[Any], done: tuple[str, ...], rest: list[str], where: str) -> None:
    """Refuse to make what users name, or another choice beside the one made, on the way to something inside it."""
    if not isinstance(here, dict) or key in here:
        return
    place = ".".join(done)
    if rest and any(get_origin(kind) is dict for kind in kinds):
        known = nearest(key, map(str, here), place.rpartition(".")[-1])
        raise MeshError(
            f"there is no {key!r} in `{place}`", where=where, instead=f"{known}; {place}.{key}={{...}} adds it"
        )
    if len(here) == 1 and any(is_model(kind, Named) for kind in kinds):
        chosen = ".".join(map(str, (place, *here, *rest)))
        what = f"`{place}` is {next(iter(here))!r}, not {key!r}"
        raise MeshError(what, where=where, instead=f"{chosen}=..., or for another choice {place}={{{key}: ...}}")


def _step(here: dict[str, Any] | list[Any], parts: list[str], done: tuple[str, ...], where: str) -> tuple[Any, int]:
    """Return the key or index to go to, and how many parts of the path it takes."""
    if isinstance(here, dict):
        sizes = (size for size in range(len(parts), 1, -1) if ".".join(parts[:size]) in here)
        size = next(sizes, 1)
        return ".".join(parts[:size]), size
    if not parts[0].isdecimal() or int(parts[0]) >= len(here):
        held = f"has the entries 0 to {len(here) - 1}" if here else "is empty"
        what = f"`{'.'.join(done)}` is a list without an entry {parts[0]}"
        raise MeshError(what, where=where, instead=f"an index: the list {held}; or --set the whole list")
    return int(parts[0]), 1


def _open(value: Any, parts: list[str], done: tuple[str, ...], where: str) -> dict[str, Any] | list[Any]:
    """Return what the path goes on in: made if it is missing, opened if it is a name without settings."""
    if isinstance(value, dict | list):
        return value
    if value is None and not parts[0].isdecimal():
        return {}
    place = ".".join(done)
    if value is None:
        raise MeshError(f"`{place}` is not there, so it has no entry {parts[0]}", where=where, instead=f"{place}=[...]")
    if isinstance(value, str) and ".".join((*parts, "")).startswith(f"{value}."):
        return {value: {}}
    if isinstance(value, str) and done == ("data",):
        return {"dataset": value}  # `data: digits` is short for it
    if isinstance(value, str) and done[:-1] == ("consensus",):
        return {"rule": value}
    instead = f"{place}.{value}.{parts[-1]}=..., or {place}=..." if isinstance(value, str) else f"{place}=..."
    raise MeshError(f"`{place}` is {value!r}, which has no field {parts[0]!r}", where=where, instead=instead)
