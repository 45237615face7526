"""The widest numbers that a device computes with."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = ("mps",)
"""Kinds of devices without float64."""


def wide(device: torch.device) -> torch.dtype:
    """float64; float32 where the device has no float64."""
    return torch.float32 if device.type in NARROW else torch.float64


def widened(value: Tensor) -> Tensor:
    """The value as float64: on its device, or on the CPU where the device has none. Gradients pass."""
    return (value.cpu() if value.device.type in NARROW else value).double()
