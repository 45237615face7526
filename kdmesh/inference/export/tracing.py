"""A graph traced by ``torch.export``, any number of samples and tokens; what cannot be is said in words."""

from __future__ import annotations

import io
import logging
import re
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import FAULTS, MeshError
from kdmesh.inference.export.graph import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

    from kdmesh.inference.export.graph import Graph

LONGEST = 240  # characters of what a library says


def traced(graph: Graph, who: str) -> ExportedProgram:
    """The program of a graph. MeshError that says why there is none."""
    any_size = torch.export.Dim.DYNAMIC
    shapes = tuple({at: any_size for at, one in enumerate(port.shape) if isinstance(one, str)} for port in graph.inputs)
    with quiet(), refused("torch.export cannot trace", who):
        inputs = graph.given(graph.drawn(ROWS, graph.lengths[-1]))
        return torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)


@contextmanager
def refused(what: str, who: str) -> Iterator[None]:
    """Whatever a library raises meanwhile becomes a MeshError of one line: ``what``, the agent's name, and why."""
    try:
        yield
    except MeshError:
        raise
    except FAULTS as error:
        instead = "a model without it; kdmesh predict and kdmesh.load run the agent as it is"
        raise MeshError(f"{what} {who}: {why(error)}", where="--to", instead=instead) from None


@contextmanager
def quiet() -> Iterator[None]:
    """What torch logs, warns and prints while it exports stays unsaid: what matters it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def why(error: BaseException) -> str:
    """The cause of what torch raised, in a line: its own first words are about what it tried."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for one in reversed(chain):
        text = str(one)
        if found := re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text):
            return f"ONNX has no operator for {found[1]}"
        if "data-dependent" in text:
            return "its forward decides by the values of its inputs (if, while, .item()), which no graph holds"
        if found := re.search(r"specialized it to be a constant \((\d+)\)", text):
            return "its forward fixes the number of samples, or of tokens"
    told = next((line.strip() for line in str(chain[-1]).splitlines() if line.strip()), "")
    return f"{type(chain[-1]).__name__}: {told[:LONGEST]}"
