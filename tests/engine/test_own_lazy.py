"""A signal of a plugin may give logits of a class of its own that are made when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.offers import SignalOffer
from kdmesh.plugins import registry
from kdmesh.signals.lazy import Lazy, dense


class Halved(Lazy):
    """Half of what it was given, when it is asked for."""

    def __init__(self, base: Tensor) -> None:
        self.base = base
        super().__init__(base.shape, base.dtype, base.device, False)

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        made = self.base[start:stop] / 2
        return made if out is None else out.copy_(made)

    def leaves(self) -> tuple[Tensor, ...]:
        return (self.base,)

    def of(self, *rows: Tensor) -> Halved:
        return Halved(rows[0])

    def narrow(self, vocabulary: int) -> Halved:
        return Halved(self.base[:, :vocabulary])

    def detach(self) -> Halved:
        return Halved(self.base.detach())

    def to(self, device: torch.device | str) -> Halved:
        return Halved(self.base.to(device))


def lazily() -> Any:
    return lambda value: Halved(dense(value).detach())


def plainly() -> Any:
    return lambda value: value.detach() / 2


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of signal that is made later, and the same made at once."""
    for name, lazy in (("lazily", True), ("plainly", False)):
        offer = SignalOffer(name, f"{__name__}:{name}", form="logits", lazy=lazy)
        monkeypatch.setitem(registry()._offers["signals"], name, offer)


@pytest.mark.parametrize(
    ("flow", "through"), [({}, True), ({"refresh": "epoch"}, False)], ids=["once, combined", "epoch, direct"]
)
def test_it_teaches_and_is_kept_as_the_same_tensor_is(
    mesh: Any, tmp_path: Path, flow: dict[str, str], through: bool
) -> None:
    def run(signal: str) -> str:
        made = mesh("ab", train={"epochs": 2})
        made.flow("labels", ["a", "b"], objective="ce")
        if through:
            made.consensus("c", {"mean": {}}, space="logits")
            made.flow("a", "c", signal=signal, **flow)
            made.flow("c", "b", objective={"kl": {"temperature": 2}})
        else:
            made.flow("a", "b", signal=signal, objective={"kl": {"temperature": 2}}, **flow)
        sha: str = made.run(backend="inline", out=tmp_path if signal == "lazily" else None)["b"].weights_sha256
        return sha

    assert run("lazily") == run("plainly")
