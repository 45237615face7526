"""Taps: read any layer's output by a forward hook, only for the forwards that ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from torch import Tensor


class AtExit(nn.Module):
    """A ``network`` that answers with the output of one of its layers."""

    def __init__(self, network: nn.Module, exit: str) -> None:
        super().__init__()
        self.network, self.exit = network, exit

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer gives for ``x``."""
        with Taps(self.network, {self.exit: self.exit}, "agent") as values:
            self.network(x)
        return values[self.exit]


class Taps:
    """Captures named layers of one module while it is open: ``with taps: module(x)`` fills ``taps.values``."""

    def __init__(self, module: nn.Module, layers: dict[str, str], where: str) -> None:
        known = dict(module.named_modules())
        for name, path in layers.items():
            if path not in known:
                raise MeshError(
                    f"no layer {path!r} in this model",
                    where=f"{where}.taps.{name}",
                    instead=nearest(path, [layer for layer in known if layer], "layers"),
                )
        self._layers = {name: known[path] for name, path in layers.items()}
        self._handles: list[Any] = []
        self.values: dict[str, Tensor] = {}

    def __enter__(self) -> dict[str, Tensor]:
        self.values = {}
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._capture(name)))
        return self.values

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _capture(self, name: str) -> Any:
        values = self.values

        def hook(_module: nn.Module, _inputs: Any, value: Any) -> None:
            values[name] = value[0] if isinstance(value, tuple) else value

        return hook
