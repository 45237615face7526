"""The mesh from Python: own modules and data, results as modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import kdmesh
from kdmesh.errors import MeshError


def own_data(n: int = 60) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    return TensorDataset(x, x.argmax(1))


def small(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))


def test_own_modules_and_data_in_modules_out() -> None:
    made = kdmesh.Mesh(data=kdmesh.data(own_data(), own_data(20), own_data(24)), train={"epochs": 2, "batch_size": 16})
    given = [small(0), small(1)]
    teachers = [made.agent(f"t{i}", module, update="frozen") for i, module in enumerate(given)]
    student = made.agent("student", nn.Linear(4, 4))
    made.connect("ensemble", teachers=teachers, student=student, consensus="mean", objective={"kl": {"temperature": 4}})
    result = made.run(backend="inline")
    for name, module in zip(teachers, given, strict=True):
        for ours, theirs in zip(result[name].module.parameters(), module.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    found = result["student"]
    x, y = own_data(24).tensors
    with torch.no_grad():
        right = (found.module(x).argmax(1) == y).float().mean().item()
    assert found.metrics["test"]["accuracy"] == pytest.approx(right)
    assert found.role == "student" and not found.module.training
    assert result.folder is None
    with pytest.raises(MeshError, match="no agent 'studnt'"):
        result["studnt"]


class Wrapped(nn.Module):
    """A model that answers as transformers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        class Output:
            logits = self.body(x)

        return Output()


def test_outputs_with_logits_are_understood() -> None:
    made = kdmesh.Mesh(data=kdmesh.data(own_data()), train={"epochs": 1, "batch_size": 16})
    made.agent("a", Wrapped())
    made.flow("labels", "a", objective="ce")
    assert made.run(backend="inline").summary["agents"]["a"]["updates"] > 0


def test_an_import_path_is_a_model_too() -> None:
    made = kdmesh.Mesh(data=kdmesh.data(own_data()), train={"epochs": 1, "batch_size": 16})
    made.agent("a", {"torch.nn:Linear": {"in_features": 4, "out_features": 4}})
    made.flow("labels", "a", objective="ce")
    assert isinstance(made.run(backend="inline")["a"].module, nn.Linear)


def test_a_model_of_another_size_is_refused_before_the_run() -> None:
    made = kdmesh.Mesh(data=kdmesh.data(own_data()), train={"epochs": 1, "batch_size": 16})
    made.agent("a", nn.Linear(4, 7))
    made.flow("labels", "a", objective="ce")
    with pytest.raises(MeshError, match=r"shape \(2, 7\), not \(2, 4\)") as error:
        made.run(backend="inline")
    assert error.value.where == "agents.a.model"


def test_another_seed_gives_other_weights(mesh: Any, hashes: Any) -> None:
    found = []
    for seed in (0, 0, 1):
        made = mesh(["s"], seed=seed)
        made.flow("labels", "s", objective="ce")
        found.append(hashes(made))
    assert found[0] == found[1] != found[2]


def test_hints_and_attention_read_taps_of_both_ends() -> None:
    data = {"dataset": "digits", "train": 64}
    found = []
    for weight in (1.0, 50.0):
        made = kdmesh.Mesh(data=data, train={"epochs": 1, "batch_size": 32})
        made.agent("t", {"cnn": {"width": 8}}, update="frozen", taps={"maps": "layers.0"})
        made.agent("s", {"cnn": {"width": 4}})
        made.flow("labels", "s", objective="ce")
        made.flow("t", "s", objective="hint", tap={"of": "maps", "to": "layers.0"}, weight=weight)
        made.flow("t", "s", objective="attention", tap="layers.1", weight=weight)
        found.append(made.run(backend="inline")["s"].weights_sha256)
    assert found[0] != found[1]


def test_controls_need_a_folder(mesh: Any) -> None:
    made = mesh(["s"])
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match="controls read"):
        made.run(backend="inline", controls=True)


class Given(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))


def named(mesh):
    mesh.agent("t", Given())
    mesh.agent("s", Given())
    return mesh


@pytest.mark.parametrize(
    ("wrong", "where", "what", "instead"),
    [
        (lambda mesh: mesh.agent("s", "mlp"), "agents", "'s' is there already", "another name"),
        (lambda mesh: mesh.agent(Given()), "agents", "found Given", "a name"),
        (lambda mesh: mesh.agent("x", Given), "agents.x.model", "found the class Given", "a module of it: Given(...)"),
        (
            lambda mesh: (mesh.connect("ensemble", teachers=Given(), student="s"), mesh.plan()),
            "connect.0.ensemble.teachers",
            "found an object, Given",
            "mesh.agent(NAME, module)",
        ),
        (
            lambda mesh: (mesh.connect("ensemble", teachers=["t", Given()], student="s"), mesh.plan()),
            "connect.0.ensemble.teachers.1",
            "found an object, Given",
            "its name",
        ),
        (
            lambda mesh: (mesh.flow(Given(), "s"), mesh.plan()),
            "flows.0.from",
            "found an object, Given",
            "its name",
        ),
        (
            lambda mesh: (mesh.consensus("c", "mean"), mesh.consensus("c", "vote")),
            "consensus",
            "'c' is there already",
            "another name",
        ),
        (lambda mesh: kdmesh.Mesh(data=[torch.zeros(3)]), "data", "found list", "kdmesh.data(train, test=...)"),
        (
            lambda mesh: (kdmesh.Mesh(agnets={}), kdmesh.Mesh(agnets={}).plan()),
            "agnets",
            "unknown field",
            "did you mean 'agents'?",
        ),
        (lambda mesh: mesh.run(backend="inlien"), "backend", "there is no backend 'inlien'", "did you mean 'inline'?"),
        (lambda mesh: mesh.run(checkpoint_seconds=float("nan")), "checkpoint_seconds", "found nan", "0 or more"),
        (lambda mesh: mesh.run(progress_timeout=-1), "progress_timeout", "found -1", "0 or more"),
        (lambda mesh: mesh.run(progress_timeout="600"), "progress_timeout", "found '600'", "0 or more"),
        (lambda mesh: kdmesh.Mesh(seed=10**40, agents={"a": None}).plan(), "seed", "133 bits", "below 2^63"),
    ],
)
def test_wrong_arguments_are_told_with_their_place(wrong, where, what, instead):
    mesh = named(kdmesh.Mesh(data="digits"))
    with pytest.raises(MeshError) as caught:
        wrong(mesh)
    assert caught.value.where == where
    assert what in caught.value.what and instead in caught.value.instead


@pytest.mark.parametrize(
    ("call", "where", "what"),
    [
        (lambda mesh: mesh.run(seeds=0), "seeds", "found 0"),
        (lambda mesh: mesh.run(seeds="2"), "seeds", "found '2'"),
        (lambda mesh: mesh.run(seeds=True), "seeds", "found True"),
        (lambda mesh: mesh.run(resume=3), "resume", "found int"),
        (lambda mesh: mesh.run(out=3), "out", "found int"),
        (lambda mesh: kdmesh.Mesh(splits=[1]), "splits", "found list"),
        (lambda mesh: kdmesh.load(None), "folder", "found NoneType"),
        (
            lambda mesh: mesh.agent("t", nn.Linear(4, 4, device="meta")),
            "agents.t.model",
            "weight is on the device meta",
        ),
        (lambda mesh: mesh.agent("t", nn.LazyLinear(4)), "agents.t.model", "weight has no shape yet"),
    ],
)
def test_arguments_of_another_type_are_refused(call: Any, where: str, what: str) -> None:
    made = kdmesh.Mesh(data=kdmesh.data(own_data()))
    made.agent("s", nn.Linear(4, 4))
    made.flow("labels", "s", objective="ce")
    with pytest.raises(MeshError, match=what) as error:
        call(made)
    assert error.value.where == where and error.value.instead
