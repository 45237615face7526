"""The program of ``torch.export``, which torch runs without the model's code, and compilers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.inference.export.form import Form
from kdmesh.inference.export.tracing import quiet, refused, traced

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kdmesh.inference.export.form import Answers
    from kdmesh.inference.export.graph import Graph


class TorchExport(Form):
    """See the module."""

    name, title, file = "torch_export", "torch.export", "model.pt2"

    def write(self, graph: Graph, path: Path, who: str) -> None:
        """Trace and save; the samples that were traced are not kept."""
        program = traced(graph, who)
        with quiet(), refused("torch.export cannot save", who):
            program.example_inputs = None
            torch.export.save(program, path)

    def open(self, path: Path, graph: Graph) -> Answers:
        """The program's module."""
        with quiet():
            module = torch.export.load(path).module()

        def answers(inputs: tuple[Tensor, ...]) -> Tensor:
            found: Tensor = module(*inputs)
            return found

        return answers
