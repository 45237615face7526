"""Leave torch's compiler out of a process that compiles nothing: its import takes as long as that of torch itself.

Optimisers and networks on the `meta` device import ``torch._dynamo`` only to tell it what it shall not compile. Until
anything else of it is asked for, a module stands in its place that notes what it is told, and tells it then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

NAME, MARK = "torch._dynamo", "__dynamo_disable"  # mark: where torch keeps of a function what is called in its place


class StandIn(ModuleType):
    """The compiler as code sees it that nobody compiles: it breaks no graph, and disables nothing."""

    def __init__(self, file: str | None) -> None:
        super().__init__(NAME)
        self.__file__ = file
        self._told: list[tuple[Callable[..., Any], bool]] = []

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Nothing: what runs was not compiled."""

    def disable(self, fn: Any = None, recursive: bool = True, **more: Any) -> Any:
        """The function itself where torch asks for its own; anything else the compiler answers."""
        if fn is None or more != {"wrapping": False}:
            return self._read().disable(fn, recursive, **more)
        self._told.append((fn, recursive))
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what is asked of every module: by inspect, by warnings
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        return getattr(self._read(), name)

    def _read(self) -> ModuleType:
        """The compiler, imported in place of this module; it is told what this one was told."""
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME], torch._dynamo
        compiler = import_module(NAME)
        while self._told:
            function, recursive = self._told.pop()
            if getattr(function, MARK, None) is function:
                setattr(function, MARK, compiler.disable(function, recursive, wrapping=False))
        return compiler


def spare_compiler() -> None:
    """Have the compiler imported by whoever compiles, and by nobody else, in this process from here on."""
    spec = None if NAME in sys.modules else find_spec(NAME)
    if spec is not None:
        sys.modules[NAME] = torch._dynamo = StandIn(spec.origin)
