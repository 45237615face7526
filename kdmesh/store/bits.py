"""Whole numbers in as many bits as they need: 18 where there are 151,936 of them, in place of 32."""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.errors import MeshError

MOST = 32  # bits of a number
ROWS = 2**16  # that are worked on at a time: what they need beside them stays small


def width(count: int) -> int:
    """How many bits tell ``count`` numbers apart, 0 to ``count - 1``: ``ceil(log2 count)``, at least 1."""
    return max(1, (count - 1).bit_length())


def size(numbers: int, bits: int) -> int:
    """How many bytes a row of so many numbers takes."""
    return -(-numbers * bits // 8)


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Whole numbers ``[N, k]``, 0 to ``2**bits - 1``, as ``[N, ceil(k bits / 8)]`` uint8; the lowest bit comes first.

    MeshError for a number that is outside.
    """
    if not 1 <= bits <= MOST:
        raise ValueError(f"{bits} bits, where 1 to {MOST} can be packed")
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >> bits):
        low, high = int(numbers.min()), int(numbers.max())
        raise MeshError(f"numbers from {low} to {high} do not fit into {bits} bits", where="form", instead="exact")
    made = [_packed(part.long(), bits) for part in numbers.split(ROWS)]
    return torch.cat(made) if made else numbers.new_empty((0, size(numbers.shape[1], bits)), dtype=torch.uint8)


def unpack(data: Tensor, count: int, bits: int) -> Tensor:
    """The numbers ``[N, count]`` int64 that :func:`pack` was given."""
    made = [_unpacked(part, count, bits) for part in data.split(ROWS)]
    return torch.cat(made) if made else data.new_empty((0, count), dtype=torch.int64)


def _places(count: int, bits: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each number its first byte, and the bit there at which it begins."""
    begin = torch.arange(count, device=device) * bits
    return begin // 8, begin % 8


def _packed(numbers: Tensor, bits: int) -> Tensor:
    byte, shift = _places(numbers.shape[1], bits, numbers.device)
    spare = MOST // 8 + 1  # a number that begins within a byte may reach into so many
    out = torch.zeros((len(numbers), size(numbers.shape[1], bits) + spare), dtype=torch.int64, device=numbers.device)
    moved = numbers << shift
    for part in range(spare):  # no two numbers share a bit: a sum is a union
        out.index_add_(1, byte + part, (moved >> (8 * part)) & 255)
    return out[:, :-spare].to(torch.uint8)


def _unpacked(data: Tensor, count: int, bits: int) -> Tensor:
    byte, shift = _places(count, bits, data.device)
    spare = MOST // 8 + 1
    wide = torch.nn.functional.pad(data, (0, spare))
    found = torch.zeros((len(data), count), dtype=torch.int64, device=data.device)
    for part in range(spare):
        found |= wide[:, byte + part].long() << (8 * part)
    return (found >> shift) & ((1 << bits) - 1)
