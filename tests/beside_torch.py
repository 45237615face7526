"""Lets torchvision's wheel from PyPI, which is built with CUDA's torch, be imported beside the CPU's: `make test`.

The two operators that it looks for are declared before it looks; nothing here computes them. For tests alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

MARK = "# put here by tests/beside_torch.py of kdmesh"
DECLARED = f"""{MARK}
import torch as _torch

_missing = _torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(_torch.ops.torchvision, _name):
        _missing.define(f"{{_name}}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""


def prepare(folder: Path) -> None:
    """Declare the operators in the torchvision that stands in a folder, once."""
    first = folder / "torchvision" / "__init__.py"
    text = first.read_text(encoding="utf-8")
    if not text.startswith(MARK):
        first.write_text(DECLARED + text, encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
