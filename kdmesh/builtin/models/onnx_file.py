"""A model in the ONNX format, run by onnxruntime on the CPU, as a frozen agent.

The file is read from memory, so that none beside it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdmesh.builtin.models._file import FileModel


class OnnxFile(FileModel):
    """See the module. ``output``: which of several is meant; ``gives``: logits (or values), or probabilities."""

    name, library, extra = "onnx", "onnxruntime", "onnx"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        path: Path,
        output: str | None,
        gives: str,
        size: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, size, input_shape, classes, labels, output=output, gives=gives)

    def open(self, content: bytes) -> Any:
        """The session. MeshError for a model of several inputs, or an output that it has not."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            told = ", ".join(f"{one.name} ({one.type})" for one in inputs)
            raise self._wrong(f"has the inputs {told}", "a model of one input, tensor(float)")
        asked = self.settings["output"]
        if asked is None and len(outputs) > 1:
            raise self._wrong(f"has the outputs {', '.join(outputs)}", f"output: {outputs[-1]}")
        if asked is not None and asked not in outputs:
            raise self._wrong(f"has no output {asked!r}", f"one of {', '.join(outputs)}")
        return session

    def answers(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Logits as the file has them, or logarithms of probabilities."""
        asked = self.settings["output"]
        (found,) = model.run(None if asked is None else [asked], {model.get_inputs()[0].name: x})
        rows = np.asarray(found).reshape(len(x), -1)
        return self._log(rows) if self.settings["gives"] == "probabilities" else rows
