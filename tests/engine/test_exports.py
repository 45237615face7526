"""What is exported is what was measured: the run itself reads each agent's folder again and compares."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

import kdmesh
from kdmesh.errors import MeshError, RunFailed

DATA = {"dataset": "digits", "train": 64, "test": 32}


class Net(nn.Module):
    """A net by an import path."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Forgetful(Net):
    """A net whose answers depend on what no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += float(self.training)
        return super().forward(x) + self.seen


class Noisy(Net):
    """A net that draws in eval mode, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


def annotated(width: int) -> Net:
    return Net(width)


def silent(width):  # type: ignore[no-untyped-def]
    return Net(width)


def run(model: Any, tmp_path: Any, **fields: Any) -> kdmesh.api.Result:
    mesh = kdmesh.Mesh(data=DATA, train={"epochs": 1, "batch_size": 32, **fields})
    mesh.agent("s", model)
    mesh.flow("labels", "s", objective="ce")
    return mesh.run(backend="inline", out=tmp_path)


def proof(result: Any, name: str = "s") -> dict[str, Any]:
    assert result.folder is not None
    told = json.loads((result.folder / "summary.json").read_text())
    export: dict[str, Any] = told["agents"][name]["export"]
    return export


def test_a_function_that_does_not_say_what_it_makes_is_not_called(tmp_path: Any) -> None:
    with pytest.raises(MeshError, match=r"agents\.s\.model: test_exports:silent is no nn\.Module class"):
        run({"test_exports:silent": {"width": 5}}, tmp_path)


@pytest.mark.parametrize(
    ("model", "by"),
    [
        ({"mlp": {"hidden": [8]}}, "kdmesh.load"),
        ({"resnet": {"width": 4}}, "kdmesh.load"),
        ({"test_exports:Net": {"width": 5}}, "kdmesh.load"),
        ({"test_exports:annotated": {"width": 5}}, "kdmesh.load"),
        ("test_exports:Noisy", "kdmesh.load"),
        (Net(), "weights"),
    ],
)
def test_every_agent_is_compared_after_it_is_saved(model: Any, by: str, tmp_path: Any) -> None:
    result = run(model, tmp_path)
    found, root = proof(result), result.folder / "agents" / "s"  # type: ignore[operator]
    assert (found["by"], found["difference"], found["problem"]) == (by, 0.0, "")
    assert found["samples"] == (4 if by == "kdmesh.load" else 0)
    card = (root / "README.md").read_text()
    program = card.split("```python\n")[1].split("```")[0]
    assert ("kdmesh.load" in program) == (by == "kdmesh.load")
    scope: dict[str, Any] = {"own": Net(5 if isinstance(model, dict) else 8)}
    program = program.replace('"s', f'"{root}').replace("...  # build it as you did", "own  #")
    exec(program, scope)
    x = torch.rand(3, 1, 8, 8)
    torch.manual_seed(0)
    mine = result["s"].module(x)
    torch.manual_seed(0)
    assert torch.equal(scope["model"](x), mine)
    if by == "weights":
        with pytest.raises(MeshError, match=r"its class is not stored|no function that says"):
            kdmesh.load(root)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_agents_of_half_precision_and_of_some_layers_are_compared_alike(precision: str, tmp_path: Any) -> None:
    mesh = kdmesh.Mesh(data=DATA, train={"epochs": 1, "batch_size": 32, "precision": precision})
    mesh.agent("deep", {"mlp": {"hidden": [8, 10]}})
    mesh.agent("early", weights_of="deep", exit="layers.1")
    mesh.agent("mean", update={"ema": {"of": "deep"}})
    mesh.flow("labels", "deep", objective="ce")
    mesh.flow("labels", "early", objective="ce")
    mesh.flow("mean", "deep", objective="kl")
    result = mesh.run(backend="inline", out=tmp_path)
    for name in ("deep", "early", "mean"):
        found = proof(result, name)
        assert (found["by"], found["difference"]) == ("kdmesh.load", 0.0), name


def test_a_difference_fails_the_export_and_loses_nothing(tmp_path: Any) -> None:
    mesh = kdmesh.Mesh(data=DATA, train={"epochs": 1, "batch_size": 32})
    for name, model in (("good", "test_exports:Net"), ("bad", "test_exports:Forgetful")):
        mesh.agent(name, model)
        mesh.flow("labels", name, objective="ce")
    with pytest.raises(RunFailed, match=r"agents/bad/model.safetensors: outputs differ by up to 2") as failed:
        mesh.run(backend="inline", out=tmp_path)
    (root,) = (path for path in tmp_path.glob("*/*") if path.is_dir())
    assert failed.value.exit_code == 1 and failed.value.file == str(root)
    summary = json.loads((root / "summary.json").read_text())
    assert summary["agents"]["good"]["export"]["problem"] == ""
    assert summary["agents"]["bad"]["metrics"]["test"]["accuracy"] >= 0
    assert load_file(root / "agents" / "bad" / "model.safetensors").keys() == Net().state_dict().keys()


def test_what_a_library_raises_while_it_writes_keeps_the_weights(tmp_path: Any, monkeypatch: Any) -> None:
    from kdmesh.hosts import export

    def broken(*_: Any) -> str:
        raise KeyError("a card")

    monkeypatch.setattr(export, "_card", broken)
    with pytest.raises(RunFailed, match="agents/s: KeyError: 'a card'"):
        run({"mlp": {}}, tmp_path)
    (weights,) = tmp_path.glob("*/*/agents/s/model.safetensors")
    assert load_file(weights)


def test_a_compiled_module_is_saved_by_its_own_names(tmp_path: Any) -> None:
    module = Net()
    module.body = torch.compile(module.body, backend="eager")  # type: ignore[assignment]
    result = run(module, tmp_path)
    assert proof(result)["by"] == "weights" and proof(result)["problem"] == ""
    state = load_file(result.folder / "agents" / "s" / "model.safetensors")  # type: ignore[operator]
    again = Net()
    again.load_state_dict(state)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.eval()(x), result["s"].module(x))


def test_a_disk_that_is_full_while_weights_are_saved_leaves_the_run_to_be_resumed(tmp_path, monkeypatch):
    def full(state, path, *args):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def made():
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        mesh = kdmesh.Mesh(data=kdmesh.data((x, x.argmax(1))), train={"steps": 2})
        mesh.agent("s", {"mlp": {"hidden": [4]}})
        mesh.flow("labels", "s", objective="ce")
        return mesh

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="No space left") as error:
        patch.setattr("kdmesh.hosts.export.save_file", full)
        made().run(backend="inline", out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    assert str(folder) in "".join(error.value.__notes__)
    assert not (folder / "agents" / "s" / "model.safetensors").exists()
    assert made().run(backend="inline", resume=folder).summary["agents"]["s"]
    kdmesh.load(folder / "agents" / "s")
