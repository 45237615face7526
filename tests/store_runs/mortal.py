"""A model whose process is killed at its first forward in another process than the one that a file names."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from torch import Tensor, nn


class Mortal(nn.Module):
    """A linear layer; ``flag``: a file with the number of the process that lives, which is deleted before the kill."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self.flag = flag
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        flag = Path(self.flag)
        if flag.exists() and flag.read_text(encoding="utf-8") != str(os.getpid()):
            flag.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(x.flatten(1))
