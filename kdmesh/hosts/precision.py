"""In which precision a forward computes, by the name that a file has for it."""

from __future__ import annotations

import torch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def cast(device: str, precision: str) -> torch.autocast:
    """What a forward on a ``device`` (cpu, cuda, mps) stands in; in fp32 it takes what its caller stands in away."""
    return torch.autocast(device, HALF.get(precision, torch.bfloat16), enabled=precision in HALF)
