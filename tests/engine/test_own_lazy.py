"""A signal of a plugin may give logits of a class of its own that are made when they are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.publications import Key
from kdmesh.offers import SignalOffer
from kdmesh.plugins import fault, registry
from kdmesh.signals import codecs as table
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


class Packed(Halved):
    """The same, of a class that says what it is made of."""

    def of(self, *rows: Tensor) -> Packed:
        return Packed(rows[0])

    def detach(self) -> Packed:
        return Packed(self.base.detach())

    def to(self, device: torch.device | str) -> Packed:
        return Packed(self.base.to(device))

    def pack(self) -> dict[str, Tensor]:
        return {"whole": self.base, "count": torch.tensor(len(self))}

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> Packed:
        assert len(parts["whole"]) == parts["count"]
        return cls(parts["whole"])


class Shorter(Packed):
    """What it is restored to lacks a row."""

    @classmethod
    def restore(cls, parts: dict[str, Tensor]) -> Shorter:
        return cls(parts["whole"][1:])


def packed() -> Any:
    return lambda value: Packed(dense(value).detach())


def shorter() -> Any:
    return lambda value: Shorter(dense(value).detach())


def lazily() -> Any:
    return lambda value: Halved(dense(value).detach())


def plainly() -> Any:
    return lambda value: value.detach() / 2


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of signal that is made later, and the same made at once."""
    codecs = {"packed": "Packed", "shorter": "Shorter", "unlike": "Halved", "nameless": "", "lazily": "", "plainly": ""}
    for name, codec in codecs.items():
        make = {"unlike": "packed", "nameless": "packed"}.get(name, name)
        offer = SignalOffer(name, f"{__name__}:{make}", form="logits", lazy=name != "plainly")
        offer = replace(offer, codec=codec and f"{__name__}:{codec}")
        assert not fault("signals", offer)
        monkeypatch.setitem(registry()._offers["signals"], name, offer)
    monkeypatch.setattr(table, "KINDS", dict(table.KINDS))


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

    assert run("lazily") == run("plainly") == run("packed")


@pytest.mark.parametrize("name", ["packed", "lazily"])
def test_it_crosses_and_is_kept_as_its_codec_says_and_else_whole(mesh: Any, opened: Any, name: str) -> None:
    """Published and live from one host to another, and through a checkpoint of the reader's."""
    made = mesh("abc", train={"epochs": 2}, placement="spread")
    made.flow("labels", ["a", "b", "c"], objective="ce")
    made.flow("a", "b", objective="kl", signal=name, refresh="epoch")
    made.flow("b", "a", objective="kl", refresh="epoch")
    made.flow("a", "c", objective="kl", signal=name, refresh="step")
    run, hosts = opened(made)
    run.execute()
    (host,) = [one for one in hosts.values() if set(one.agents) == {"b"}]
    key, kind = Key("a", "train", name), Packed if name == "packed" else Tensor
    before = host.publications.get(key).values
    assert isinstance(before, kind)
    (stage,) = run.plan.stages
    saved = host.save(stage.name, None)
    host.publications._visible.clear()
    host.load(stage.name, saved)
    after = host.publications.get(key).values
    assert isinstance(after, kind) and torch.equal(dense(after), dense(before))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shorter", "what its codec restores is a tensor of shape"),
        ("nameless", r"which is packed, and its offer does not say codec='.*:Packed'"),
        ("unlike", r"the codec .*:Halved is not a class of signals that are packed(?s:.*)the methods pack and restore"),
    ],
)
def test_a_codec_that_is_none_is_refused_before_the_run(mesh: Any, tmp_path: Path, name: str, said: str) -> None:
    made = mesh("ab")
    made.flow("labels", ["a", "b"], objective="ce")
    made.flow("a", "b", objective="kl", signal=name)
    with pytest.raises((MeshError, RunFailed), match=said):
        made.run(backend="inline", out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_codec_of_what_is_not_lazy_is_a_fault() -> None:
    assert "it is not lazy" in fault("signals", SignalOffer("one", "m:one", codec="m:One"))
    assert "not 'module:Class'" in fault("signals", SignalOffer("one", "m:one", lazy=True, codec="m.One"))


def test_a_kind_that_nobody_offers_is_named() -> None:
    with pytest.raises(RunFailed, match="kind away:Kind cannot be restored"):
        table.restore("away:Kind", {"x": torch.zeros(1)})
