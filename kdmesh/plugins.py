"""Load plugins, each alone, and find what they offer by kind and name.

The environment switches them: ``KDMESH_PLUGINS=a,b`` loads only these (empty: none), ``KDMESH_DISABLE_PLUGINS=a,b`` all
but these, by the name of the plugin or of its distribution; ``KDMESH_PLUGINS_DIR`` is a folder of single-file plugins;
``KDMESH_STRICT_PLUGINS=1`` makes any problem an error; ``KDMESH_TRACE_PLUGINS=1`` prints every hook call to stderr.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import decode_source, find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

import pluggy
from pydantic import BaseModel, ValidationError

from kdmesh import hookspecs
from kdmesh.errors import MeshError, RunFailed, frames_of, line_of, nearest, shown, wanted
from kdmesh.offers import API, KNOWN, Offer
from kdmesh.published import OFFERED
from kdmesh.spec import offered
from kdmesh.spec.explain import explain
from kdmesh.spec.numbers import refuse_odd_values

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from importlib.metadata import EntryPoint
    from types import ModuleType

NOUNS = {
    "strategies": "strategy",
    "objectives": "objective",
    "consensus": "consensus rule",
    "gates": "gate",
    "models": "model",
    "datasets": "data set",
    "views": "view",
    "signals": "kind of signal",
    "tasks": "task",
    "metrics": "metric",
    "samplers": "sampler",
    "commands": "command",
}
KINDS = tuple(NOUNS)
IN_FILES = tuple(kind for kind in KINDS if kind not in ("samplers", "commands"))  # what a mesh's file names
COMMANDS = (
    "run", "resume", "compare", "sweep", "report", "watch", "runs", "store", "plan", "draw", "check", "schema",
    "topologies", "plugins",
)  # fmt: skip
"""Of kdmesh's own, which no plugin takes."""
HEAVY = ("torch", "ray", "transformers")  # what takes seconds to import, and no listing needs
IMPORTED = ("models", "datasets")  # also named by an import path, ``package.module:Thing``
FOLDER = "KDMESH_PLUGINS_DIR"  # read where kdmesh is started; its files travel, and workers may not see it
SWITCHES = (
    "KDMESH_PLUGINS",
    "KDMESH_DISABLE_PLUGINS",
    FOLDER,
    "KDMESH_STRICT_PLUGINS",
    "KDMESH_TRACE_PLUGINS",
)
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class BadOffer(Exception):
    """What a plugin offers is not what the hooks ask for."""


@dataclass
class PluginRecord:
    """What became of one plugin. ``error`` says why it is broken or shadowed; ``claims``: the names it offers.

    ``remark``: what is not as it should be of one that is used nevertheless. ``module``: what its entry point names, or
    its file. ``frames``: of its own code, where that raised.

    ``status``: `ok`; `disabled` by a switch, never imported; `broken`, none of it is used; `shadowed`, some name it
    offers is taken, the rest is used.
    """

    name: str
    dist: str
    version: str
    status: str = "ok"
    error: str = ""
    claims: dict[tuple[str, str], Offer] = field(default_factory=dict)
    remark: str = ""
    module: str = ""
    frames: str = ""

    def __str__(self) -> str:
        return f"{self.dist} {self.version}".strip()

    def refuse(self, status: str, error: str) -> None:
        """Note one more thing that is wrong with it."""
        self.status, self.error = status, "; ".join(filter(None, (self.error, error)))


@dataclass(frozen=True)
class PluginFile:
    """One file of a folder of plugins. Its text travels to workers, which may not see the folder."""

    name: str
    path: str
    text: str

    def load(self) -> ModuleType:
        """Run the text as a module of the file's name, once per process."""
        if self.name in sys.modules and getattr(sys.modules[self.name], "__file__", None) == self.path:
            return sys.modules[self.name]
        other = None if self.name in sys.modules else find_spec(self.name)
        if self.name in sys.modules or (other is not None and other.origin != self.path):
            raise ImportError(f"another module is called {self.name!r}: rename {self.path}")
        spec = spec_from_file_location(self.name, self.path)
        assert spec is not None
        module = sys.modules[self.name] = module_from_spec(spec)
        try:
            exec(compile(self.text, self.path, "exec"), module.__dict__)
        except BaseException:
            del sys.modules[self.name]
            raise
        return module


class Registry:
    """Everything that the loaded plugins offer. Lives in the driver; workers resolve factories by import string."""

    def __init__(
        self,
        plugins: Iterable[Any],
        installed: Iterable[EntryPoint | PluginFile] = (),
        *,
        only: str | None = None,
        disabled: str = "",
        strict: bool = False,
        trace: bool = False,
    ) -> None:
        """``plugins`` must load; of the ``installed`` a broken one is recorded and left out, and harms nobody else.

        ``only`` and ``disabled`` are lists of names with commas between; ``strict`` raises MeshError at a broken one.
        """
        self.manager = pluggy.PluginManager("kdmesh")
        self.manager.add_hookspecs(hookspecs)
        if trace:
            self.manager.add_hookcall_monitoring(lambda *_: None, _trace)
        self.records: list[PluginRecord] = []
        self._offers: dict[str, dict[str, Offer]] = {kind: {} for kind in KINDS}
        self._said: set[str] = set()
        self.lent: tuple[Offer, ...] = ()
        self._installed = self._offers
        for plugin in plugins:
            self._add(plugin)
        allowed, blocked = None if only is None else _names(only), _names(disabled)
        for source in installed:
            self._load(source, allowed, blocked)
        seen = {_plain(name) for record in self.records for name in (record.name, record.dist)}
        for name in sorted((allowed or set()) - seen):
            self.records.append(PluginRecord(name, name, "", "broken", "named in KDMESH_PLUGINS, but not installed"))
        self._settle()
        for record in self.records:
            if strict and record.error:
                raise MeshError(f"the plugin {record.name!r} of {record} is {record.status}: {record.error}")

    def _load(self, source: EntryPoint | PluginFile, allowed: set[str] | None, blocked: set[str]) -> None:
        """Load one plugin, alone."""
        if isinstance(source, PluginFile):
            record = PluginRecord(source.name, source.path, "", module=source.path)
        else:
            dist, module = source.dist, source.module
            record = PluginRecord(source.name, dist.name if dist else "?", dist.version if dist else "?", module=module)
        self.records.append(record)
        names = {_plain(record.name), _plain(record.dist)}
        if names & blocked or (allowed is not None and not names & allowed):
            record.status = "disabled"
            return
        plugin, before = None, [name for name in HEAVY if name in sys.modules]
        try:
            plugin = source.load()
            if heavy := [name for name in HEAVY if name in sys.modules and name not in before]:
                record.remark = too_heavy(heavy)
            self.manager.register(plugin, name=f"{record}: {record.name}")
            self.manager.check_pending()  # turns a misspelt hook into an error
            if not self.manager.get_hookcallers(plugin):
                raise BadOffer(_hookless(plugin))
            problems = [*_unmarked(plugin), *self._claims(plugin, record.claims)]
            problems += filter(None, (fault(kind, offer) for (kind, _), offer in record.claims.items()))
            if problems:
                raise BadOffer("; ".join(problems))
        except (Exception, SystemExit) as error:
            if plugin is not None and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)  # registering can fail half-way
            kind = "" if isinstance(error, BadOffer) else f"{type(error).__name__}: "
            record.refuse("broken", kind + " ".join(str(error).split()))
            record.frames = frames_of(error)

    def _claims(self, plugin: Any, claims: dict[tuple[str, str], Offer]) -> list[str]:
        """Note all offers of one plugin in ``claims`` by (kind, name), and return what is wrong with them together."""
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        problems = []
        for kind in KINDS:
            hook = f"kdmesh_{kind}"
            if not any(impl.plugin is plugin for impl in getattr(self.manager.hook, hook).get_hookimpls()):
                continue
            try:
                answers = self.manager.subset_hook_caller(hook, others)() or [None]  # pluggy leaves a None out
            except Exception as error:
                raise BadOffer(f"{hook} failed: {type(error).__name__}: {error}") from error
            for offers in answers:
                if not isinstance(offers, list | tuple):
                    raise BadOffer(f"{hook} returns {_named(offers)}, not a list of offers")
                for offer in offers:
                    key = kind, str(getattr(offer, "name", ""))
                    if key in claims:
                        problems.append(f"the {NOUNS[kind]} {key[1]!r} is offered twice")
                    claims[key] = offer
        return problems

    def _add(self, plugin: Any) -> None:
        """Add a plugin that must load, with its offers as they are."""
        self.manager.register(plugin)
        self.manager.check_pending()
        claims: dict[tuple[str, str], Offer] = {}
        self._claims(plugin, claims)
        for (kind, name), offer in claims.items():
            if name in self._offers[kind]:
                raise MeshError(f"two plugins offer the {NOUNS[kind]} {name!r}", where="plugins")
            self._offers[kind][name] = offer

    def _settle(self) -> None:
        """Add what the installed plugins offer: what must load wins, and a name that two of them offer is nobody's."""
        owners: dict[tuple[str, str], list[PluginRecord]] = defaultdict(list)
        for record in self.records:
            for key in record.claims if record.status == "ok" else ():
                owners[key].append(record)
        for (kind, name), records in owners.items():
            for record in records:
                others = [str(other) for other in records if other is not record]
                what = f"offers the {NOUNS[kind]} {name!r}"
                if name in self._offers[kind] or (kind == "commands" and name in COMMANDS):
                    record.refuse("shadowed", f"{what}, which is built in: the built-in one is used")
                elif others:
                    record.refuse("shadowed", f"{what}, and so does {', '.join(others)}: none of them can be named")
        for (kind, name), records in owners.items():
            if len(records) == 1 and not (kind == "commands" and name in COMMANDS):
                self._offers[kind].setdefault(name, records[0].claims[kind, name])
        self._offers = self._installed = {kind: dict(sorted(found.items())) for kind, found in self._offers.items()}

    def lend(self, offers: tuple[Offer, ...]) -> None:
        """Have these too, in place of installed ones of their names, and no others lent before; hosts get them sent.

        For offers of tests, which no package has to install.
        """
        if offers == self.lent:
            return
        self.lent, self._offers = offers, {kind: dict(found) for kind, found in self._installed.items()}
        for offer in offers:
            self._offers[offer.kind][offer.name] = offer

    def names(self, kind: str) -> list[str]:
        """Every offered name of a kind, sorted."""
        return list(self._offers[kind])

    def offers(self, kind: str) -> list[Any]:
        """Every offer of a kind, sorted by name."""
        return list(self._offers[kind].values())

    def find(self, kind: str, name: str, where: str = "") -> Any:
        """Return one offer, or say which plugin fails to provide it, or which name was probably meant."""
        if name in self._offers[kind]:
            return self._offers[kind][name]
        claimed = [record for record in self.records if (kind, name) in record.claims]
        if claimed:
            raise MeshError(
                f"the {NOUNS[kind]} {name!r} cannot be used: "
                + "; ".join(f"{record} is {record.status} ({record.error})" for record in claimed),
                where=where,
                instead="repair or uninstall a plugin, or set KDMESH_DISABLE_PLUGINS",
            )
        known = self.names(kind)
        missing = [f"{record} did not load ({record.error})" for record in self.records if record.status == "broken"]
        missing += [f"{record} is disabled" for record in self.records if record.status == "disabled"]
        package = OFFERED.get((kind, name))
        if package is not None and package not in {record.dist for record in self.records}:
            missing.append(f"install {package}, which offers {name!r}")
        raise MeshError(
            f"unknown {NOUNS[kind]} {name!r}",
            where=where,
            instead="; ".join([*self._meant(kind, name), nearest(name, known, f"known {kind}"), *missing]),
        )

    def _meant(self, kind: str, name: str) -> list[str]:
        """What an unknown name may be: a class without its colon, a file or a hub's id."""
        module, _, thing = name.rpartition(".")
        if ":" in name:
            return [f"only models and data sets are named by an import path; a plugin can offer {NOUNS[kind]} {name!r}"]
        if kind in IMPORTED and re.fullmatch(FACTORY, f"{module}:{thing}") and thing[:1].isupper():
            return [f"'{module}:{thing}', with a colon, for {thing} of the module {module}"]
        reading = [
            offer.name for offer in self.offers(kind) if kind in IMPORTED and "path" in offer.config.model_fields
        ]
        fits = [other for other in reading if name.endswith(f".{other}")] or (reading if len(reading) == 1 else [])
        return [f"a file, folder or hub id is a setting: {{{other}: {{path: {name!r}}}}}" for other in fits]

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

    def observe(
        self,
        hook: str,
        without: Container[str] = (),
        timed: Callable[[str, Callable[..., Any]], Callable[..., Any]] = lambda plugin, call: call,
        **about: Any,
    ) -> list[str]:
        """Call an observer hook of every plugin, save those ``without``; returns the names of those that raised.

        ``timed``: takes a plugin's name and its call, and gives what is called instead.

        One that raises, or asks to exit, is named on stderr, once, and stops nothing. Each is given copies of what
        can be changed, but for the run.
        """
        failed = []
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            if impl.plugin_name in without:
                continue
            others = [other for other in self.manager.get_plugins() if other is not impl.plugin]
            own = {name: deepcopy(value) if isinstance(value, dict) else value for name, value in about.items()}
            try:
                timed(impl.plugin_name, self.manager.subset_hook_caller(hook, others))(**own)
            except (Exception, SystemExit) as error:
                self._say(f"plugin {impl.plugin_name} failed in {hook}: {type(error).__name__}: {error}{shown(error)}")
                failed.append(impl.plugin_name)
        return failed

    def each(self, hook: str, about: Callable[[], dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """What each plugin answers, by the plugin's name; the exception of one that raises; none of one with None.

        ``about``: makes the arguments, for each plugin anew.
        """
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            others = [other for other in self.manager.get_plugins() if other is not impl.plugin]
            try:
                answers = self.manager.subset_hook_caller(hook, others)(**about())
            except Exception as error:
                yield impl.plugin_name, error
            else:
                yield from ((impl.plugin_name, answer) for answer in answers)

    def ask(self, hook: str, look: Callable[[Any], None] = lambda answer: None, **about: Any) -> Any:
        """Return the first answer of the plugins, the built-in one last.

        RunFailed names the one that raises, or of whose answer ``look`` raises; a MeshError of ``look`` names it, too.
        """
        for impl in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            others = [other for other in self.manager.get_plugins() if other is not impl.plugin]
            try:
                answer = self.manager.subset_hook_caller(hook, others)(**about)
                if answer is not None:
                    look(answer)
            except MeshError as error:
                error.what = f"{error.what} (plugin {impl.plugin_name}, {hook})"
                raise
            except Exception as error:
                raise RunFailed(
                    f"plugin {impl.plugin_name} failed in {hook}: {type(error).__name__}: {error}"
                ) from error
            if answer is not None:
                return answer
        return None

    def attribute_error(self, kind: str, name: str, error: Exception, doing: str, where: str) -> NoReturn:
        """Raise RunFailed, which says whose code raised ``error`` and what it was ``doing``; MeshError as it is."""
        if isinstance(error, MeshError):
            raise error
        record, what = self.origin(kind, name), f"{type(error).__name__}: {error}{line_of(error)}"
        raise RunFailed(
            f"the {NOUNS[kind]} {name!r} of {record or 'kdmesh'} failed {doing}: {what}",
            where=where,
            instead="another one, or report this to its author" if record else "",
        ) from error

    def theirs(self, kind: str, name: str) -> str:
        """An offer of a plugin with whose it is, `the model 'net' of kdmesh-x 0.1.0`; "" of a built-in one."""
        record = self.origin(kind, name)
        return f"the {NOUNS[kind]} {name!r} of {record}" if record else ""

    def warn(self) -> None:
        """Say on stderr, once, which plugins have a problem."""
        for record in self.records:
            if record.error:
                frames = f"\n{record.frames.rstrip()}" if record.frames and wanted() else ""
                self._say(f"plugin {record.name!r} of {record} is {record.status}: {record.error}{frames}")
            if record.remark:
                self._say(f"plugin {record.name!r} of {record}: {record.remark}")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print(f"kdmesh: warning: {text}", file=sys.stderr)


def _hookless(plugin: Any) -> str:
    """Say what a plugin without any hook lacks."""
    hooks = [name for name in dir(hookspecs) if name.startswith("kdmesh_") and callable(getattr(plugin, name, None))]
    lack = f"{hooks[0]} is not marked" if hooks else "it has no function marked"
    return f"{lack} @kdmesh.hookimpl, so it offers nothing"


def _unmarked(plugin: Any) -> list[str]:
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


def _named(value: Any) -> str:
    return "None" if value is None else type(value).__name__


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


BUILT_IN = ("kdmesh.builtin.plugin",)
"""Modules with hooks that are always there; by name, as installed plugins are."""


def registry() -> Registry:
    """The registry of this process: the built-ins, every installed plugin, and those of the plugins folder."""
    return _registry(tuple(os.environ.get(name) for name in SWITCHES))


@cache
def _registry(switches: tuple[str | None, ...]) -> Registry:
    only, disabled, folder, strict, trace = switches
    return Registry(
        [import_module(name) for name in BUILT_IN],
        [*entry_points(group="kdmesh"), *_files(folder or "")],
        only=only,
        disabled=disabled or "",
        strict=strict not in (None, "", "0"),
        trace=trace not in (None, "", "0"),
    )


_received: list[PluginFile] = []


def _files(folder: str) -> list[PluginFile]:
    """The plugins of a folder: its ``*.py``, by name; in a worker what the driver sent."""
    if _received or not folder:
        return _received
    if not Path(folder).is_dir():
        raise MeshError(f"{folder!r} is not a folder", where="--plugins-dir", instead="a folder of single-file plugins")
    paths = sorted(Path(folder).resolve().glob("[!_]*.py"))
    return [PluginFile(path.stem, str(path), _source(path)) for path in paths if path.is_file()]


def _source(path: Path) -> str:
    """The text of a plugin's file, in the encoding that it declares; of one that cannot be read, text that says why."""
    try:
        return decode_source(path.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"raise ImportError({f'cannot be read: {error}'!r})"


def carried() -> dict[str, Any]:
    """What makes another process' registry like this one's, in plain types: for :func:`receive` there."""
    files = _files(os.environ.get(FOLDER, ""))
    return {
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ and name != FOLDER},
        "files": [(file.name, file.path, file.text) for file in files],
    }


def receive(sent: dict[str, Any]) -> None:
    """Take over what :func:`carried` returned in the driver; called in a worker before anything is unpickled there."""
    for name in SWITCHES:
        os.environ.pop(name, None)
    os.environ.update(sent["switches"])
    _received[:] = [PluginFile(*fields) for fields in sent["files"]]
    _registry.cache_clear()
    registry()


def _names(text: str) -> set[str]:
    return {_plain(name) for name in text.split(",") if name.strip()}


def _plain(name: str) -> str:
    """A name as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _trace(outcome: pluggy.Result[Any], hook: str, impls: Any, about: Any) -> None:
    """Print one finished hook call."""
    if impls:
        end = f"raised {outcome.exception!r}" if outcome.exception is not None else "done"
        who = ", ".join(impl.plugin_name for impl in impls)
        print(f"kdmesh: trace: {hook}({', '.join(about)}) by {who}: {end}", file=sys.stderr)


offered.ask = registry  # messages about the file name what plugins offer
