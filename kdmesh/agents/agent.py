"""An agent: a view of weights that computes. Roles (teacher, student, peer) are in the flows, not here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.agents.build import output
from kdmesh.agents.taps import Taps

if TYPE_CHECKING:
    from kdmesh.agents.weights import Weights
    from kdmesh.streams.views import View

_default = torch.default_generator


class Agent:
    """Forwards its weights on samples as it sees them.

    ``forward(x [B, ...]) -> (logits [B, C], {tap: value [B, ...]})``. ``made`` counts samples forwarded as a publisher.
    """

    def __init__(self, name: str, weights: Weights, view: View | None, layers: dict[str, str]) -> None:
        self.name, self.weights, self.view, self.layers = name, weights, view, layers
        self.module = weights.module
        self.device = torch.device(weights.settings.device)
        self.forwards = 0
        self._taps: dict[tuple[str, ...], Taps] = {}
        self._bf16 = weights.settings.precision == "bf16"

    def taps(self, names: tuple[str, ...]) -> Taps:
        """The hooks for these taps; a name that the agent does not define is a module path."""
        if names not in self._taps:
            layers = {name: self.layers.get(name, name) for name in names}
            self._taps[names] = Taps(self.module, layers, f"agents.{self.name}")
        return self._taps[names]

    def see(self, x: Tensor, ids: Tensor, epoch: int) -> Tensor:
        """The samples through the agent's view."""
        return x if self.view is None else self.view(x, ids.to(x.device), epoch)

    def forward(self, x: Tensor, names: tuple[str, ...] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute, with whatever mode and grad are in force."""
        if self._bf16:
            with torch.autocast(self.device.type, torch.bfloat16):
                return self._forward(x, names)
        return self._forward(x, names)

    def _forward(self, x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        self.forwards += 1
        if not names:
            return output(self.module(x)), {}
        with self.taps(names) as values:
            logits = output(self.module(x))
        return logits, values

    def still(self, x: Tensor, fixed: int, names: tuple[str, ...] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward in eval mode without gradient, in padded batches of one fixed size.

        A linear layer's rows change with the batch size, so this is what makes a live answer and a stored one, and
        answers for different batches, equal bit for bit.
        """
        if len(x) == fixed and not self.module.training:  # the usual case in a step
            with torch.no_grad():
                return self.forward(x, names)
        training = self.module.training
        if training:
            self.module.eval()
        parts: list[tuple[Tensor, dict[str, Tensor]]] = []
        with torch.no_grad():
            for start in range(0, len(x), fixed):
                part = x[start : start + fixed]
                size = len(part)
                if size < fixed:
                    part = torch.cat([part, part[-1:].expand(fixed - size, *part.shape[1:])])
                logits, values = self.forward(part, names)
                parts.append((logits[:size], {name: value[:size] for name, value in values.items()}))
        if training:
            self.module.train()
        if len(parts) == 1:
            return parts[0]
        taps = {name: torch.cat([part[1][name] for part in parts]) for name in names}
        return torch.cat([part[0] for part in parts]), taps


def reseed(seed: int, device: torch.device) -> None:
    """Seed the default generator of the CPU, and of the device the forward runs on."""
    _default.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
