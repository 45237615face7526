"""ONNX with numbers of 8 bits: a quarter of the size, and products of integers.

As :mod:`kdmesh.hosts.compression.int8` rounds in training: weights of linear layers by output, what goes into them by
row as it comes, rows of embeddings. What is no such product, a convolution say, stays float32.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from kdmesh.errors import MeshError
from kdmesh.hosts.compression.int8 import LARGEST, LEAST, exact
from kdmesh.inference.export.onnx import Onnx

if TYPE_CHECKING:
    from kdmesh.inference.export.graph import Graph

MIDDLE = 128  # what stands for 0 in inputs: runtimes multiply unsigned by signed numbers fastest


class Int8(Onnx):
    """See the module."""

    name, title = "int8", "ONNX of 8 bits"
    rounds = True

    def write(self, graph: Graph, path: Path, who: str) -> None:
        """Write float32 aside, and put integers in the place of its products."""
        import onnx

        with TemporaryDirectory() as aside, exact(graph):
            whole = Path(aside) / path.name
            super().write(graph, whole, who)
            model = onnx.load(str(whole))
        _Rounding(model.graph).run(who)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


class _Rounding:
    """Rewrites a graph."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._graph, self._nodes, self._added = graph, list[Any](), dict[str, Any]()
        self._rows = dict[str, tuple[str, str]]()  # by an input: its integers and their scale
        self._array = numpy_helper.to_array
        self._tensor = numpy_helper.from_array
        self._weights = {one.name: one for one in graph.initializer if one.data_type == 1 and len(one.dims) == 2}

    def run(self, who: str) -> None:
        """Rewrite it. MeshError where it has nothing to round."""
        for node in self._graph.node:
            if node.op_type == "MatMul" and node.input[1] in self._weights:
                self._product(node, False)
            elif node.op_type == "Gemm" and node.input[1] in self._weights and self._is_linear(node):
                self._product(node, self._is(node, "transB"))
            elif node.op_type == "Gather" and node.input[0] in self._weights and not self._is(node, "axis"):
                self._embedding(node)
            else:
                self._nodes.append(node)
        if not self._added:
            what = f"{who} has no linear layer or embedding, which alone become 8 bits"
            raise MeshError(what, where="--to", instead="onnx")
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        kept = [one for one in (*self._graph.initializer, *self._added.values()) if one.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _is_linear(self, node: Any) -> bool:
        """Whether a Gemm multiplies rows as they stand, and scales neither the product nor what is added."""
        scaled = any(one.name in ("alpha", "beta") and one.f != 1 for one in node.attribute)
        return not scaled and not self._is(node, "transA")

    def _is(self, node: Any, name: str) -> bool:
        return any(one.name == name and one.i for one in node.attribute)

    def _add(self, kind: str, inputs: list[str], output: str, **more: Any) -> str:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [output], **more))
        return output

    def _constant(self, name: str, value: Any) -> str:
        if name not in self._added:
            self._added[name] = self._tensor(value, name)
        return name

    def _held(self, name: str, axis: int, turned: bool = False) -> tuple[str, str]:
        """A matrix as integers, and by what they are multiplied: one number along the other axis."""
        value = self._array(self._weights[name])
        value = value.T if turned else value
        largest = np.maximum(np.abs(value).max(axis, keepdims=True), np.float32(LEAST))
        scale = (largest / np.float32(LARGEST)).astype(np.float32)
        own = f"{name}.turned" if turned else name
        whole = np.ascontiguousarray(np.rint(value / scale).astype(np.int8))
        return self._constant(f"{own}.int8.{axis}", whole), self._constant(f"{own}.scale.{axis}", scale)

    def _row(self, name: str) -> tuple[str, str]:
        """The rows of an input as integers, and their scales."""
        if name not in self._rows:
            axis = self._constant("int8.last", np.array([-1], np.int64))
            least, largest = (
                self._constant(f"int8.{one}", np.array(value, np.float32))
                for one, value in (("least", LEAST), ("largest", LARGEST))
            )
            middle = self._constant("int8.middle", np.array(MIDDLE, np.float32))
            own = f"{name}.row"  # an embedding's own output has names of its own
            size = self._add("ReduceMax", [self._add("Abs", [name], f"{own}.size"), axis], f"{own}.most", keepdims=1)
            scale = self._add("Div", [self._add("Max", [size, least], f"{own}.bound"), largest], f"{own}.scale")
            whole = self._add("Round", [self._add("Div", [name, scale], f"{own}.steps")], f"{own}.whole")
            self._rows[name] = (
                self._add("Cast", [self._add("Add", [whole, middle], f"{own}.up")], f"{own}.uint8", to=2),
                scale,
            )
        return self._rows[name]

    def _product(self, node: Any, turned: bool) -> None:
        weights, each = self._held(node.input[1], 0, turned)
        row, scale = self._row(node.input[0])
        output, zero = node.output[0], self._constant("int8.zero", np.array(MIDDLE, np.uint8))
        count = self._add("MatMulInteger", [row, weights, zero], f"{output}.count")
        value = self._add("Mul", [self._add("Cast", [count], f"{output}.float", to=1), scale], f"{output}.rows")
        if node.op_type == "Gemm" and len(node.input) > 2:
            self._add("Add", [self._add("Mul", [value, each], f"{output}.sum"), node.input[2]], output)
        else:
            self._add("Mul", [value, each], output)

    def _embedding(self, node: Any) -> None:
        rows, each = self._held(node.input[0], 1)
        output = node.output[0]
        whole = self._add("Gather", [rows, node.input[1]], f"{output}.int8")
        value = self._add("Cast", [whole], f"{output}.float", to=1)
        self._add("Mul", [value, self._add("Gather", [each, node.input[1]], f"{output}.scale")], output)
