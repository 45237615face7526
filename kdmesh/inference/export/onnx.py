"""ONNX, written by ``torch.onnx`` from a traced program and run by onnxruntime on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.inference.export.form import Form
from kdmesh.inference.export.tracing import quiet, refused, traced

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from kdmesh.inference.export.form import Answers
    from kdmesh.inference.export.graph import Graph

LARGEST = 2**30
"""Bytes of weights up to which one file holds everything; larger ones stand in ``model.onnx.data`` beside it."""


class Onnx(Form):
    """See the module."""

    name, title, file = "onnx", "ONNX", "model.onnx"
    libraries = ("onnx", "onnxscript", "onnxruntime")

    def write(self, graph: Graph, path: Path, who: str) -> None:
        """Trace, translate and save."""
        program = traced(graph, who)
        axes = tuple({at: one for at, one in enumerate(port.shape) if isinstance(one, str)} for port in graph.inputs)
        with quiet(), refused("ONNX cannot hold", who):
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in graph.inputs],
                output_names=[graph.output.name],
                dynamic_shapes=axes,
                verbose=False,
            )
            size = sum(one.numel() * one.element_size() for one in graph.state_dict().values())
            made.save(str(path), external_data=size > LARGEST)

    def open(self, path: Path, graph: Graph) -> Answers:
        """A session of onnxruntime."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [port.name for port in graph.inputs]

        def answers(inputs: tuple[Tensor, ...]) -> Tensor:
            (found,) = session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
            return torch.from_numpy(found)

        return answers
