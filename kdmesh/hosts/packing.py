"""What crosses between hosts: numpy arrays. Ray hands these over read-only and without a copy; here they are cloned.

Zero-copy torch tensors are not used: with them an in-place operation in one process changes what another one sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from kdmesh.hosts.publications import Key
from kdmesh.signals import codecs

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from kdmesh.graph.steps import Op
    from kdmesh.signals.lazy import Lazy

Packed = list[tuple[str, str, list[tuple[str, Any, str]]]]
"""By name: the kind that a value crosses as, and each part's name, array and type."""
Bundle: TypeAlias = "dict[tuple[int, Op], Packed]"
"""What ops of one host give to those of another, by step and op."""
Published = dict[Key, Packed]
K = TypeVar("K")
VALUE = ""


def pack(value: tuple[Tensor | Lazy, dict[str, Any]], only: Container[str] | None = None) -> Packed:
    """Turn ``(logits, named)`` into arrays; what is None, or not among ``only`` ("": the logits), stays away."""
    packed: Packed = []
    for name, whole in ((VALUE, value[0]), *value[1].items()):
        if whole is not None and (only is None or name in only):
            kind, parts = codecs.pack(whole)
            packed.append((name, kind, [(part, _array(tensor), str(tensor.dtype)) for part, tensor in parts.items()]))
    return packed


def unpack(bundle: Mapping[K, Packed], device: torch.device) -> dict[K, Any]:
    """Turn a bundle back into private tensors on a device: ``(logits or None, named)`` by key."""
    out: dict[K, Any] = {}
    for key, packed in bundle.items():
        values: dict[str, Any] = {
            name: codecs.restore(kind, {part: _tensor(array, dtype, device) for part, array, dtype in parts})
            for name, kind, parts in packed
        }
        out[key] = (values.pop(VALUE, None), values)
    return out


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _tensor(array: np.ndarray, dtype: str, device: torch.device) -> Tensor:
    tensor = torch.tensor(array)
    return (tensor.view(torch.bfloat16) if dtype == "torch.bfloat16" else tensor).to(device)
