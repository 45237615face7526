"""What a form of other software is to an export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from kdmesh.inference.export.graph import Graph

    Answers = Callable[[tuple[Tensor, ...]], Tensor]  # what a file gives for a graph's inputs


class Form(ABC):
    """One form. ``file``: what the file is called; ``libraries``: what writes and runs it, beside torch; ``rounds``: it
    holds other numbers than the agent, so that only scores tell how near it is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    file: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()
    rounds: ClassVar[bool] = False

    @abstractmethod
    def write(self, graph: Graph, path: Path, who: str) -> None:
        """Write the file. MeshError, in words, where the form cannot hold the graph."""

    @abstractmethod
    def open(self, path: Path, graph: Graph) -> Answers:
        """The file, read again as its users read it."""

    def refuse(self) -> None:
        """MeshError where a library is missing."""
        if missing := [name for name in self.libraries if find_spec(name) is None]:
            what = f"{self.title} needs {', '.join(missing)}"
            raise MeshError(what, where="--to", instead='pip install "kdmesh[export]"')

    def versions(self) -> dict[str, str]:
        """Of what writes and runs it."""
        return {name: version(name) for name in ("torch", *self.libraries)}
