"""Signals that are made of more than a value: gradients of the samples, Jacobians, attention rollout, draws."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts import making
from kdmesh.hosts.local_weights import sha256
from kdmesh.offers import SignalOffer
from kdmesh.plugins import fault, registry
from kdmesh.testing import SignalContract

FROZEN = {"teacher": {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}}
DRAWN: list[Tensor] = []
EXACT = {"epochs": 2, "batch_size": 32, "drop_last": True}


def gradients(module: nn.Module, x: Tensor) -> Tensor:
    """How the log of the sum of exponentials of the logits changes with each value of a sample, ``[B, D]``."""
    (found,) = torch.autograd.grad(module(x).logsumexp(1).sum(), x, create_graph=True)
    return found.flatten(1)


def jacobian(module: nn.Module, x: Tensor) -> Tensor:
    """How each logit changes with each value of a sample, ``[B, C, D]``."""
    logits = module(x)
    rows = [torch.autograd.grad(column.sum(), x, create_graph=True)[0].flatten(1) for column in logits.T]
    return torch.stack(rows, 1)


class InputGradient:
    """``[B, D]`` of :func:`gradients`."""

    def __call__(self, value: Tensor, *, x: Tensor, module: nn.Module) -> Tensor:
        return gradients(module, x)


class Jacobian:
    """``[B, C, D]`` of :func:`jacobian`."""

    def __call__(self, value: Tensor, *, x: Tensor, module: nn.Module) -> Tensor:
        return jacobian(module, x)


class Rollout:
    """Attention rollout: the product of ``A + I`` of all layers, rows summing to 1 (Abnar and Zuidema, 2020)."""

    def __call__(self, value: Tensor, *, taps: dict[str, Tensor]) -> Tensor:
        total: Tensor | None = None
        for name in sorted(taps):
            layer = taps[name] + torch.eye(taps[name].shape[-1]).to(taps[name])
            layer = layer / layer.sum(-1, keepdim=True)
            total = layer if total is None else layer @ total
        assert total is not None
        return total


class Noisy:
    """Logits and noise from the generator that it is given."""

    def __call__(self, value: Tensor, *, generator: torch.Generator) -> Tensor:
        DRAWN.append(torch.randn(value.shape, generator=generator))
        return value + DRAWN[-1]


class Global:
    """Logits and noise from torch's default generator."""

    def __call__(self, value: Tensor) -> Tensor:
        DRAWN.append(torch.randn(value.shape))
        return value + DRAWN[-1]


class Spoils:
    """A signal that trains the module that it was only lent."""

    def __call__(self, value: Tensor, *, module: nn.Module) -> Tensor:
        with torch.no_grad():
            next(module.parameters()).mul_(2)
        return value


class Untidy:
    """One that asks the module in eval mode, and leaves it in train mode, as if it had been so."""

    def __call__(self, value: Tensor, *, x: Tensor, module: nn.Module) -> Tensor:
        asked = module.eval()(x)
        module.train()
        return asked


class Hidden:
    """One that works on weights where no version of a tensor tells."""

    def __call__(self, value: Tensor, *, module: nn.Module) -> Tensor:
        for weight in module.parameters():
            weight.data.mul_(0.5)
        return value


class Freezes:
    """One that leaves weights without gradient."""

    def __call__(self, value: Tensor, *, module: nn.Module) -> Tensor:
        module.requires_grad_(False)
        return value


class Constant:
    """A signal through which nothing can be learned."""

    def __call__(self, value: Tensor, *, x: Tensor) -> Tensor:
        return x.flatten(1).detach()


class Attending(nn.Module):
    """Two layers of attention over the values of a sample as tokens; each one's map is a module's output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = Maps(), Maps(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1)[..., None]
        for layer in (self.first, self.second):
            tokens = layer(tokens) @ tokens
        logits: Tensor = self.head(tokens[..., 0])
        return logits


class Maps(nn.Module):
    """Attention maps ``[B, N, N]`` of tokens ``[B, N, 1]``."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(1, 2), nn.Linear(1, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.query(tokens) @ self.key(tokens).transpose(1, 2)).softmax(-1)


class Normed(nn.Sequential):
    """A model with running statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin would offer."""
    both: dict[str, Any] = {"form": "hidden", "needs": ("x", "module"), "gradient": True, "both": True}
    for offer in (
        SignalOffer("input_gradient", f"{__name__}:InputGradient", **both),
        SignalOffer("jacobian", f"{__name__}:Jacobian", **both),
        SignalOffer("constant", f"{__name__}:Constant", form="hidden", needs=("x",), both=True),
        SignalOffer("rollout", f"{__name__}:Rollout", form="hidden", needs=("taps",), both=True),
        SignalOffer("noisy", f"{__name__}:Noisy", form="logits", needs=("generator",)),
        SignalOffer("global", f"{__name__}:Global", form="logits"),
        SignalOffer("spoils", f"{__name__}:Spoils", form="logits", needs=("module",)),
        SignalOffer("untidy", f"{__name__}:Untidy", form="logits", needs=("x", "module")),
        SignalOffer("quiet", f"{__name__}:Hidden", form="logits", needs=("module",)),
        SignalOffer("freezes", f"{__name__}:Freezes", form="logits", needs=("module",)),
    ):
        monkeypatch.setitem(registry()._offers["signals"], offer.name, offer)


@pytest.mark.parametrize(("signal", "made"), [("input_gradient", gradients), ("jacobian", jacobian)])
def test_gradients_of_samples_are_matched_as_in_a_plain_loop(
    mesh: Any, start: Any, hashes: Any, signal: str, made: Any
) -> None:
    mesh_ = mesh({**FROZEN, "s": {}}, train=EXACT)
    mesh_.flow("labels", "s", objective="ce")
    mesh_.flow("teacher", "s", objective="hint", signal=signal, refresh="step", weight=0.5)
    begin = start(mesh_)
    teacher, student = begin.modules["teacher"].eval().requires_grad_(False), begin.modules["s"].train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for at in begin.batches(2):
        if len(at) < 32:
            continue
        x = begin.x[at]
        target = made(teacher, x.clone().requires_grad_()).detach()
        logits = student(x)
        own = made(student, x.clone().requires_grad_())
        loss = F.cross_entropy(logits, begin.y[at]) + 0.5 * F.mse_loss(own, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert hashes(mesh_)["s"] == sha256(student)


@pytest.mark.parametrize(
    ("signal", "flow"),
    [
        ("input_gradient", {"refresh": "step"}),
        ("input_gradient", {"refresh": "once"}),
        ("noisy", {"refresh": "step", "mode": "train"}),
    ],
)
def test_together_and_spread_are_equal(mesh: Any, hashes: Any, signal: str, flow: dict[str, str]) -> None:
    found = []
    for placement in ("together", "spread"):
        made = mesh({**FROZEN, "s": {}}, train={"epochs": 1, "batch_size": 32}, placement=placement)
        objective = "hint" if signal == "input_gradient" else "mse"
        made.flow("teacher", "s", objective=objective, signal=signal, **flow)
        found.append(hashes(made))
    assert found[0] == found[1]


@pytest.mark.parametrize("flow", [{"refresh": "once"}, {"refresh": "step"}, {"refresh": "step", "mode": "eval"}])
@pytest.mark.parametrize("signal", ["noisy", "global"])
def test_nothing_is_drawn_where_a_source_answers_in_eval_mode(mesh: Any, signal: str, flow: dict[str, str]) -> None:
    """What is drawn there would be of a place in a batch: the same in each, and another one live, stored, resumed."""
    made = mesh({**FROZEN, "s": {}})
    made.flow("teacher", "s", objective="mse", signal=signal, **flow)
    told = "draws for each batch, and" if signal == "noisy" else "draws from a global generator"
    with pytest.raises((MeshError, RunFailed), match=told):
        made.run(backend="inline")


def test_a_consensus_is_given_nothing_drawn(mesh: Any) -> None:
    made = mesh({"a": {}, "b": {}, "s": {}})
    made.flow("labels", ["a", "b", "s"], objective="ce")
    made.consensus("c", "mean", space="logits")
    made.flow(["a", "b"], "c", signal="noisy", refresh="step")
    made.flow("c", "s", objective="mse")
    with pytest.raises(MeshError, match="c is measured of answers in eval mode"):
        made.run(backend="inline")


@pytest.mark.parametrize("signal", ["noisy", "global"])
def test_each_step_of_a_source_that_trains_draws_anew(mesh: Any, hashes: Any, signal: str) -> None:
    found = []
    for _ in range(2):
        DRAWN.clear()
        made = mesh({"t": {}, "s": {}}, train={"epochs": 1, "batch_size": 32})
        made.flow("labels", "t", objective="ce")
        made.flow("t", "s", objective="mse", signal=signal, refresh="step")
        found.append(hashes(made))
        full = [noise.numpy().tobytes() for noise in DRAWN if len(noise) == 32]
        assert len(set(full[-2:])) == 2  # before these come those of check
    assert found[0] == found[1]


def test_attention_rollout_of_all_taps_is_compared(mesh: Any, hashes: Any) -> None:
    taps = {"a": "first", "b": "second"}
    agents = {
        "teacher": {"model": f"{__name__}:Attending", "update": "frozen", "taps": taps},
        "s": {"model": f"{__name__}:Attending", "taps": taps},
    }
    found = []
    for signal in (None, "rollout"):
        made = mesh(agents, train={"steps": 3})
        made.flow("labels", "s", objective="ce")
        if signal is not None:
            made.flow("teacher", "s", objective="hint", signal=signal, refresh="step", weight=100.0)
        found.append(hashes(made)["s"])
    assert found[0] != found[1]


def test_the_reader_needs_a_gradient_through_its_own(mesh: Any) -> None:
    made = mesh({**FROZEN, "s": {}})
    made.flow("teacher", "s", objective="hint", signal="constant", refresh="step")
    with pytest.raises((MeshError, RunFailed), match="without gradient, which would train nothing"):
        made.run(backend="inline")


def test_what_is_lent_is_not_changed(mesh: Any) -> None:
    made = mesh({**FROZEN, "s": {}})
    made.flow("teacher", "s", objective="mse", signal="spoils", refresh="step")
    with pytest.raises((MeshError, RunFailed), match="changes the module's weights"):
        made.run(backend="inline")


@pytest.mark.parametrize("refresh", ["step", "once"])
def test_a_frozen_model_is_not_left_in_train_mode(mesh: Any, refresh: str) -> None:
    made = mesh({"t": {"model": f"{__name__}:Normed", "update": "frozen"}, "s": {}}, train={"steps": 3})
    made.flow("t", "s", objective="mse", signal="untidy", refresh=refresh)
    with pytest.raises((MeshError, RunFailed), match="it leaves the module in train mode"):
        made.run(backend="inline")


@pytest.mark.parametrize(
    ("signal", "told"),
    [("quiet", "changes the module's weights"), ("freezes", "it leaves 0.weight with requires_grad")],
)
def test_weights_of_a_model_that_trains_are_as_before(mesh: Any, signal: str, told: str) -> None:
    made = mesh({"t": {"model": f"{__name__}:Normed"}, "s": {}}, train={"steps": 3})
    made.flow("labels", "t", objective="ce")
    made.flow("t", "s", objective="mse", signal=signal, refresh="step")
    with pytest.raises((MeshError, RunFailed), match=told):
        made.run(backend="inline")


def test_what_is_switched_is_put_back_before_the_error() -> None:
    module = Normed().eval()
    offer = SignalOffer("untidy", f"{__name__}:Untidy", form="logits", needs=("x", "module"))
    with pytest.raises(ValueError, match="in train mode"):
        making.made(offer, Untidy(), torch.zeros(2, 3), torch.zeros(2, 8), module, {}, 0, first=False)
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("name", ["Untidy", "Hidden"])
def test_the_kit_sees_what_a_signal_leaves(name: str) -> None:
    offer = SignalOffer("one", f"{__name__}:{name}", form="logits", needs=("x", "module")[name == "Hidden" :])
    contract = TestJacobian()
    with pytest.raises(AssertionError, match=r"it leaves the module|it changes the module"):
        contract.test_module_is_as_before(offer, {})


def test_gradients_are_of_samples_that_are_needed() -> None:
    for needs, lack in (((), "x and module"), (("module",), "x"), (("x",), "module")):
        said = fault("signals", SignalOffer("g", "m:G", needs=needs, gradient=True))
        assert f"does not need {lack}: " in said and "needs=('x', 'module')" in said
    assert fault("signals", SignalOffer("g", "m:G", needs=("x", "module"), gradient=True)) == ""


def test_buffers_that_a_further_forward_moves_are_put_back(mesh: Any, hashes: Any) -> None:
    """The signal of an untrained flow leaves the weights, norms included, as they are without it."""
    found = []
    for signal in (None, "jacobian"):
        made = mesh({"t": {"model": f"{__name__}:Normed"}, "s": {}}, train={"steps": 3})
        made.flow("labels", ["t", "s"], objective="ce")
        if signal is not None:
            made.flow("t", "s", objective="hint", signal=signal, refresh="step", weight=0.1)
        found.append(hashes(made)["t"])
    assert found[0] == found[1]


class TestJacobian(SignalContract):
    """The contract of a signal that both ends make."""

    module = "kdmesh.offers"
    shape = (3,)

    @pytest.fixture
    def offer(self) -> SignalOffer:
        what: dict[str, Any] = {"form": "hidden", "needs": ("x", "module"), "gradient": True, "both": True}
        return SignalOffer("jacobian", f"{__name__}:Jacobian", summary="gradients of the logits", **what)


class TestRollout(SignalContract):
    """The contract of a signal that is made of layers."""

    module = "kdmesh.offers"
    taps: ClassVar[dict[str, tuple[int, ...]]] = {"a": (4, 4), "b": (4, 4)}
    expected_failures: ClassVar[dict[str, str]] = dict.fromkeys(
        ("test_a_mesh_runs_with_it", "test_ray_gives_the_same_bits"), "the small mesh has no attention"
    )

    @pytest.fixture
    def offer(self) -> SignalOffer:
        return SignalOffer("rollout", f"{__name__}:Rollout", summary="attention", form="hidden", needs=("taps",))
