"""Hooks of plugins, called: observers', each plugin's alone, and the first answer."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pluggy

from kdmesh import hookspecs
from kdmesh.errors import FAULTS, MeshError, RunFailed, shown, stopped, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator


class Hooks:
    """Plugins that are registered, and how they are asked."""

    def __init__(self, trace: bool = False) -> None:
        """``trace``: print every call to stderr."""
        self.manager = pluggy.PluginManager("kdmesh")
        self.manager.add_hookspecs(hookspecs)
        if trace:
            self.manager.add_hookcall_monitoring(lambda *_: None, _trace)
        self._said: set[str] = set()

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
            except FAULTS as error:
                self._say(f"plugin {impl.plugin_name} failed in {hook}: {text_of(error)}{shown(error)}")
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
            except FAULTS as error:
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
            except FAULTS as error:
                if stopped(error):
                    raise
                raise RunFailed(f"plugin {impl.plugin_name} failed in {hook}: {text_of(error)}") from error
            if answer is not None:
                return answer
        return None

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            print(f"kdmesh: warning: {text}", file=sys.stderr)


def _trace(outcome: pluggy.Result[Any], hook: str, impls: Any, about: Any) -> None:
    """Print one finished hook call."""
    if impls:
        end = f"raised {outcome.exception!r}" if outcome.exception is not None else "done"
        who = ", ".join(impl.plugin_name for impl in impls)
        print(f"kdmesh: trace: {hook}({', '.join(about)}) by {who}: {end}", file=sys.stderr)
