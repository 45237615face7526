"""Load plugins, each alone: a broken one is recorded and left out, and a name that two offer is nobody's."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from kdmesh.errors import FAULTS, MeshError, frames_of, text_of, wanted
from kdmesh.plugins.faults import fault, hookless, too_heavy, unmarked
from kdmesh.plugins.hooks import Hooks
from kdmesh.plugins.kinds import COMMANDS, HEAVY, KINDS, NOUNS
from kdmesh.plugins.record import BadOffer, PluginFile, PluginRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

    from kdmesh.offers import Offer


class Loaded(Hooks):
    """Plugins that were loaded, and what they offer."""

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
        super().__init__(trace)
        self.records: list[PluginRecord] = []
        self._offers: dict[str, dict[str, Offer]] = {kind: {} for kind in KINDS}
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
                raise BadOffer(hookless(plugin))
            problems = [*unmarked(plugin), *self._claims(plugin, record.claims)]
            problems += filter(None, (fault(kind, offer) for (kind, _), offer in record.claims.items()))
            if problems:
                raise BadOffer("; ".join(problems))
        except FAULTS as error:
            if plugin is not None and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)  # registering can fail half-way
            said = str(error) if isinstance(error, BadOffer) else text_of(error)
            record.refuse("broken", " ".join(said.split()))
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
                raise BadOffer(f"{hook} failed: {text_of(error)}") from error
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

    def warn(self) -> None:
        """Say on stderr, once, which plugins have a problem."""
        for record in self.records:
            if record.error:
                frames = f"\n{record.frames.rstrip()}" if record.frames and wanted() else ""
                self._say(f"plugin {record.name!r} of {record} is {record.status}: {record.error}{frames}")
            if record.remark:
                self._say(f"plugin {record.name!r} of {record}: {record.remark}")


def _named(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _names(text: str) -> set[str]:
    return {_plain(name) for name in text.split(",") if name.strip()}


def _plain(name: str) -> str:
    """A name as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
