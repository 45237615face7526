"""What crosses between hosts: numpy arrays. Ray hands these over read-only and without a copy; here they are cloned.

Zero-copy torch tensors are not used: with them an in-place operation in one process changes what another one sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.signals.lazy import FactoredLogits, Lazy
from kdmesh.signals.sparse import TopKLogits

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

Packed = list[tuple[str, Any, str]]
Bundle = dict[Any, Packed]
VALUE = ""
WEIGHT, BIAS = "#weight", "#bias"  # of the layer that makes logits of hidden rows, where these cross instead
INDEX, TAIL, COLUMNS, RULED_OUT = "#index", "#tail", "#columns", "#ruled out"  # behind the name of top-k logits


def pack(value: tuple[Tensor | Lazy, dict[str, Any]], only: Container[str] | None = None) -> Packed:
    """Turn ``(logits, named)`` into arrays; what is None, or not among ``only`` ("": the logits), stays away."""
    named = [(VALUE, value[0]), *value[1].items()]
    return [
        (part, _array(tensor), str(tensor.dtype))
        for name, whole in named
        if whole is not None and (only is None or name in only)
        for part, tensor in _parts(name, whole)
    ]


def _parts(name: str, value: Tensor | Lazy) -> Iterator[tuple[str, Tensor]]:
    """A tensor as it is; logits that are not made yet in the form that is smaller."""
    if isinstance(value, FactoredLogits) and value.compact:
        yield name, value.hidden
        settled = value.settled()  # what is handed over here is not copied at once
        yield WEIGHT, settled.weight
        if settled.bias is not None:
            yield BIAS, settled.bias
    elif isinstance(value, TopKLogits):
        yield name, value.values
        yield name + INDEX, value.index
        yield name + TAIL, value.tail
        yield name + COLUMNS, torch.tensor(value.shape[1])
        if value.ruled_out is not None:
            yield name + RULED_OUT, value.ruled_out
    else:
        yield name, value.dense() if isinstance(value, Lazy) else value


def unpack(bundle: Bundle, device: torch.device) -> dict[Any, Any]:
    """Turn a bundle back into private tensors on a device: ``(logits or None, named)`` by key."""
    out: dict[Any, Any] = {}
    for key, packed in bundle.items():
        values: dict[str, Any] = {name: _tensor(array, dtype, device) for name, array, dtype in packed}
        for name in [name.removesuffix(INDEX) for name in values if name.endswith(INDEX)]:
            index, tail, columns = (values.pop(name + part) for part in (INDEX, TAIL, COLUMNS))
            ruled_out = values.pop(name + RULED_OUT, None)
            values[name] = TopKLogits(values[name], index, tail, int(columns), ruled_out)
        value: Any
        value, weight, bias = values.pop(VALUE, None), values.pop(WEIGHT, None), values.pop(BIAS, None)
        if weight is not None and value is not None:
            value = FactoredLogits(value, weight, bias)
        out[key] = (value, values)
    return out


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _tensor(array: np.ndarray, dtype: str, device: torch.device) -> Tensor:
    tensor = torch.tensor(array)
    return (tensor.view(torch.bfloat16) if dtype == "torch.bfloat16" else tensor).to(device)
