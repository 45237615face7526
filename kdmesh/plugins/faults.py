"""What is wrong with a plugin's hooks and offers, in words."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from types import FunctionType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdmesh import hookspecs
from kdmesh.errors import nearest
from kdmesh.offers import API, KNOWN, Offer
from kdmesh.plugins.kinds import FACTORY, HEAVY, NOUNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def fault(kind: str, offer: Any) -> str:
    """Say what is wrong with one offer of a kind; empty if nothing."""
    if not isinstance(offer, Offer) or offer.kind != kind:
        return f"kdmesh_{kind} offers {type(offer).__name__}, not an offer of kind {kind}"
    named = f"the {NOUNS[kind]} {offer.name!r}"
    if not isinstance(offer.name, str) or not re.fullmatch(r"[\w.-]+", offer.name):
        return f"{named} needs a name of letters, digits, '_', '-' and '.'"
    if not isinstance(offer.api, int) or isinstance(offer.api, bool) or offer.api < 1:
        return f"{named} says api={offer.api!r}, which is no plugin API: this kdmesh has {API}"
    if offer.api > API:
        return f"{named} needs plugin API {offer.api}, and this kdmesh has {API}: upgrade kdmesh"
    if not isinstance(offer.factory, str) or not FACTORY.fullmatch(offer.factory):
        return f"{named} has the factory {offer.factory!r}, which is not 'module:attribute'"
    if codec := getattr(offer, "codec", ""):
        if not isinstance(codec, str) or not FACTORY.fullmatch(codec):
            return f"{named} has the codec {codec!r}, which is not 'module:Class'"
        if not offer.lazy:  # type: ignore[attr-defined]  # a signal's
            return f"{named} has a codec, which is of what a lazy signal gives, and it is not lazy"
    if getattr(offer, "abstains", False) and (where := {"loss", "gradient"} & set(offer.spaces)):  # type: ignore[attr-defined]  # a rule's
        return f"{named} abstains, which it cannot do in space {' or '.join(sorted(where))}"
    if getattr(offer, "gradient", False) and (lack := [one for one in ("x", "module") if one not in offer.needs]):  # type: ignore[attr-defined]  # a signal's
        return (
            f"{named} asks for gradients of its samples, and does not need {' and '.join(lack)}: these pass through"
            " `module`, called on `x` once more, needs=('x', 'module')"
        )
    config = offer.config
    if (
        not isinstance(config, type)
        or not issubclass(config, BaseModel)
        or config.model_config.get("extra") != "forbid"
    ):
        return f"{named} has a config that is no pydantic model with extra='forbid', such as kdmesh.offers.Config"
    if kind == "commands" and config.model_fields:
        return f"{named} has a config, and commands have options of their own: leave it out"
    return next((f"{named} has {what}" for what in _unknown(kind, offer)), "")


def _unknown(kind: str, offer: Any) -> Iterator[str]:
    """What the traits of an offer name that there is not, in words."""
    for trait, known in KNOWN.get(kind, {}).items():
        value = getattr(offer, trait)
        several = isinstance(next(one for one in fields(offer) if one.name == trait).default, tuple)
        if several and not isinstance(value, list | tuple):
            yield f"{trait}={value!r}, which is no tuple of names: ({value!r},)"
            continue
        for name in value if several else (value,):
            if name not in known:
                yield f"{trait} with {name!r}, which there is not: {nearest(str(name), known, trait)}"
    settings = offer.config.model_fields
    for setting, forms in getattr(offer, "forms_of", {}).items():
        if setting not in settings:
            yield f"forms_of with {setting!r}, which is none of its settings: {nearest(setting, settings, 'settings')}"
        yield from (f"forms_of with the form {form!r}, not one of its forms" for form in {*forms} - {*offer.forms})
    if (column := getattr(offer, "needs_column", "")) and column not in settings:
        yield f"needs_column={column!r}, which is none of its settings: {nearest(column, settings, 'settings')}"


def hookless(plugin: Any) -> str:
    """Say what a plugin without any hook lacks."""
    hooks = [name for name in dir(hookspecs) if name.startswith("kdmesh_") and callable(getattr(plugin, name, None))]
    lack = f"{hooks[0]} is not marked" if hooks else "it has no function marked"
    return f"{lack} @kdmesh.hookimpl, so it offers nothing"


def unmarked(plugin: Any) -> list[str]:
    """Functions of a module that are called as hooks are and are none: they would be silently left out."""
    hooks = [name for name in dir(hookspecs) if name.startswith("kdmesh_")]
    lone = [
        name
        for name, thing in getattr(plugin, "__dict__", {}).items()
        if name.startswith("kdmesh_") and isinstance(thing, FunctionType) and not hasattr(thing, "kdmesh_impl")
    ]
    return [
        f"{name} is not marked @kdmesh.hookimpl"
        if name in hooks
        else f"{name} is no hook, and hooks alone begin with kdmesh_: {nearest(name, hooks, 'hooks')}"
        for name in lone
    ]


def too_heavy(names: Iterable[str]) -> str:
    """What to say of a module that imports packages which take seconds to import."""
    what = ", ".join(names)
    return f"its module imports {what}, for which every listing and plan then waits: import it inside the factory"


def heavy_imports(module: str) -> list[str]:
    """Which packages that take seconds an interpreter of its own has imported after a plugin's module, or file.

    It takes as long as the import. Nothing where the import fails, of which loading tells.
    """
    import json
    import subprocess

    load = "runpy.run_path(sys.argv[1])" if module.endswith(".py") else "importlib.import_module(sys.argv[1])"
    probe = (
        f"import importlib, json, runpy, sys\nsys.path[:] = json.loads(sys.argv[2])\n{load}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", probe, module, json.dumps([*filter(None, sys.path)])]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].split() if done.returncode == 0 and done.stdout else []
