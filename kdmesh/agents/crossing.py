"""What crosses between hosts: numpy arrays. Ray hands these over read-only and without a copy; here they are cloned.

Zero-copy torch tensors are not used: with them an in-place operation in one process changes what another one sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Container

Packed = list[tuple[str, Any, str]]
Bundle = dict[Any, Packed]
VALUE = ""


def pack(value: tuple[Tensor, dict[str, Any]], only: Container[str] | None = None) -> Packed:
    """Turn ``(logits, named)`` into arrays; what is None, or not among ``only`` ("": the logits), stays away."""
    named = [(VALUE, value[0]), *value[1].items()]
    return [
        (name, _array(tensor), str(tensor.dtype))
        for name, tensor in named
        if tensor is not None and (only is None or name in only)
    ]


def unpack(bundle: Bundle, device: torch.device) -> dict[Any, Any]:
    """Turn a bundle back into private tensors on a device: ``(logits or None, named)`` by key."""
    out: dict[Any, Any] = {}
    for key, packed in bundle.items():
        values = {name: _tensor(array, dtype, device) for name, array, dtype in packed}
        out[key] = (values.pop(VALUE, None), values)
    return out


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _tensor(array: np.ndarray, dtype: str, device: torch.device) -> Tensor:
    tensor = torch.tensor(array)
    return (tensor.view(torch.bfloat16) if dtype == "torch.bfloat16" else tensor).to(device)
