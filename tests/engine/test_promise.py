"""What `check` passes does not fail in `run` for a reason that it could have known: batches, modes, measuring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kdmesh
from kdmesh.checks.checked import Checked
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError


class Norm(nn.Module):
    """A net with a batch norm that needs more than one value for each of its features."""

    def __init__(self, kind: type[nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(8, 4), kind(4), nn.Linear(4, 3)  # type: ignore[call-arg]

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.head(self.norm(self.first(x)))
        return value


class Squeezing(Norm):
    """Its batch axis is lost with a batch of one."""

    def __init__(self) -> None:
        super().__init__(nn.LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze(0)


def check(made: Any) -> Checked:
    return examine(made.plan(), made._modules, made.table)


def norms(mesh: Any, batch_size: int, module: nn.Module | None = None, **train: Any) -> Any:
    """One agent with a batch norm on the 90 samples of train."""
    made = mesh([], train={"batch_size": batch_size, **train})
    made.agent("s", Norm() if module is None else module)
    made.flow("labels", "s", objective="ce")
    return made


@pytest.mark.parametrize("module", [Norm(), Squeezing()], ids=["batch norm", "squeezing"])
def test_a_last_batch_of_one_is_refused_where_the_model_needs_more(mesh: Any, module: nn.Module) -> None:
    with pytest.raises(MeshError, match="90 samples in batches of 89") as error:
        check(norms(mesh, 89, module))
    assert "s's model" in str(error.value) and "drop_last: true" in error.value.instead
    norms(mesh, 89, module, drop_last=True, epochs=1).run(backend="inline")
    norms(mesh, 88, module, epochs=1).run(backend="inline")


def test_batches_of_one_are_refused_and_others_pass(mesh: Any) -> None:
    with pytest.raises(MeshError, match="batch_size: 2"):
        check(norms(mesh, 1))
    check(norms(mesh, 1, Norm(nn.LayerNorm)))
    check(norms(mesh, 89, Norm(nn.LayerNorm)))


def test_a_shard_that_leaves_one_is_refused_and_a_frozen_model_is_not(mesh: Any) -> None:
    def shards(**fields: Any) -> Any:
        made = mesh(["t"], train={"batch_size": 44}, streams={"own": {"shards": {"by": "iid", "of": ["s", "t"]}}})
        made.agent("s", Norm(), **fields)
        made.flow("labels", ["t"] if fields else ["s", "t"], objective="ce", stream="own")
        return made

    with pytest.raises(MeshError, match="the last batch of 'own' is one: 45 samples in batches of 44"):
        check(shards())
    frozen = mesh(["t"], train={"batch_size": 89})
    frozen.agent("s", Norm(), update="frozen")
    frozen.flow("s", "t", objective="kl")
    check(frozen)


def test_a_model_that_cannot_train_at_all_is_refused(mesh: Any) -> None:
    class Stuck(Norm):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("only for answers")
            return super().forward(x)

    with pytest.raises(MeshError, match="only for answers"):
        check(norms(mesh, 32, Stuck()))


@pytest.mark.parametrize(
    "train",
    [
        {"epochs": 3, "early_stopping": {"patience": 2}, "evaluate_every": 4},
        {"epochs": 3, "evaluate_every": 4},
        {"steps": 2, "early_stopping": {}},
    ],
)
def test_measuring_that_never_happens_is_refused(mesh: Any, train: Any) -> None:
    made = mesh(["s"], train=train)
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="has no effect") as error:
        check(made)
    assert error.value.where in ("train.early_stopping", "train.evaluate_every")


def test_measuring_of_one_that_never_happens_is_said(mesh: Any) -> None:
    made = mesh({"a": {}, "b": {"train": {"steps": 1}}}, train={"epochs": 2, "early_stopping": {}})
    made.flow("labels", ["a", "b"], objective="ce")
    assert any("b: `early_stopping` has no effect" in note for note in check(made).notes)


def frozen_norm() -> nn.Module:
    """A net whose owner froze its batch norm; a part within it is in train mode again."""
    net = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)), nn.Linear(8, 3))
    net[1].eval()
    net[1][1].train()  # type: ignore[index]
    return net


@pytest.mark.parametrize("measured", [{}, {"evaluate_every": 1}])
def test_modes_that_an_owner_set_stay(mesh: Any, opened: Any, measured: Any) -> None:
    """Also of a follower that answers in train mode, through an old snapshot, and where a step asks for both modes."""
    made = mesh([], train={"epochs": 2, **measured})
    given = frozen_norm()
    made.agent("s", given)
    made.agent("m", update={"ema": {"of": "s", "decay": 0.9, "mode": "train"}})
    made.agent("p", frozen_norm())
    made.flow("labels", ["s", "p"], objective="ce")
    made.flow("m", "s", objective="mse", refresh="step")
    made.flow("s", "p", objective="kl", refresh="epoch", stale="snapshot")
    made.flow("p", "s", objective="kl", refresh="step", mode="eval")
    run, hosts = opened(made)
    run.execute()
    for name in ("s", "m", "p"):
        module = next(host for host in hosts.values() if name in host.agents).agents[name].module
        assert torch.equal(module[1][0].running_mean, torch.zeros(8)) and not module[1][0].num_batches_tracked
    weights = hosts["host0"].weights["s"]
    weights.train()
    assert [part.training for part in weights.module[1].modules()] == [False, False, True]
    assert given.training and not given[1].training  # type: ignore[index]


def test_a_module_in_eval_mode_as_a_whole_trains(mesh: Any) -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    made = norms(mesh, 32, net, epochs=1)
    assert made.run(backend="inline")["s"].module[1].num_batches_tracked == 3


class Ending(Norm):
    """A net that returns what is asked for."""

    def __init__(self, end: Any) -> None:
        super().__init__(nn.LayerNorm)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(super().forward(x))


@dataclass
class Answer:
    logits: Tensor
    more: str = ""


@pytest.mark.parametrize(
    "end",
    [
        lambda logits: {"logits": logits, "hidden": logits},
        lambda logits: {"out": logits},
        lambda logits: (logits, None),
        lambda logits: [logits],
        lambda logits: Answer(logits),
    ],
    ids=["a dictionary", "a dictionary of one", "a tuple", "a list", "a dataclass"],
)
def test_logits_are_found_in_what_a_model_returns(mesh: Any, end: Any) -> None:
    norms(mesh, 32, Ending(end), epochs=1).run(backend="inline")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda logits: {"a": logits, "b": logits}, "returns a dict of a, b"),
        (lambda logits: None, "returns a NoneType"),
        (lambda logits: (), "returns a tuple"),
        (lambda logits: Answer(None), "returns a Answer"),  # type: ignore[arg-type]
    ],
)
def test_a_model_whose_logits_are_not_found_is_refused(mesh: Any, end: Any, said: str) -> None:
    with pytest.raises(MeshError, match=said) as error:
        check(norms(mesh, 32, Ending(end)))
    assert error.value.where == "agents.s.model"


@pytest.mark.parametrize("module", [Norm().half(), Norm().double()], ids=["half", "double"])
def test_a_model_of_another_type_than_the_data_is_refused(mesh: Any, module: nn.Module) -> None:
    with pytest.raises(MeshError, match="dtype") as error:
        check(norms(mesh, 32, module))
    assert "shape and type" in error.value.instead


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_keeps_the_names_of_its_weights(mesh: Any) -> None:
    plain = Norm()
    partly = Norm()
    partly.first = torch.compile(partly.first)  # type: ignore[assignment]
    for module in (torch.compile(plain), partly):
        made = norms(mesh, 32, module, epochs=1)  # type: ignore[arg-type]
        assert made.run(backend="inline")["s"].module.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("end", "said"),
    [(nn.Softmax(-1), True), (lambda x: x.softmax(1), True), (nn.Identity(), False), (nn.LogSoftmax(-1), False)],
    ids=["module", "function", "none", "logarithm"],
)
def test_a_model_that_ends_in_a_softmax_is_said(mesh: Any, end: Any, said: bool) -> None:
    notes = check(norms(mesh, 32, Ending(end))).notes
    assert any("s: the model ends in a softmax" in note for note in notes) is said


def test_a_batch_size_above_the_data_is_that_of_the_data():
    """No forward is padded to more samples than there are."""
    draw = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 6, generator=draw), torch.arange(n) % 3) for n in (40, 10, 10)]
    found = []
    for batch in (60, 10**9):
        mesh = kdmesh.Mesh(data=kdmesh.data(*parts), train={"epochs": 2, "batch_size": batch})
        for name in ("t", "s"):
            mesh.agent(name, {"mlp": {"hidden": [8]}})
        mesh.connect("ensemble", teachers="t", student="s", objective="kl")
        agents = mesh.run(backend="inline").summary["agents"]
        found.append({name: agent["weights_sha256"] for name, agent in agents.items()})
    assert found[0] == found[1]
