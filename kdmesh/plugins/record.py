"""One plugin: where it comes from, and what became of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from kdmesh.offers import Offer


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
