"""Runs that begin with the weights of a finished one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import kdmesh
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.spec.yaml12 import dump

FIELDS: dict[str, Any] = {
    "name": "first",
    "data": {"dataset": "digits", "train": 64, "validation": 0, "test": 32},
    "agents": {
        "a": {"model": {"mlp": {"hidden": [8]}}, "seed": 3},
        "b": {"model": {"mlp": {"hidden": [4]}}},
        "also": {"weights_of": "a"},
    },
    "flows": [{"from": "labels", "to": ["a", "b", "also"], "objective": "ce"}],
    "train": {"epochs": 1},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    result = kdmesh.Mesh(**FIELDS).run(backend="inline", out=tmp_path_factory.mktemp("runs"))
    assert result.folder is not None
    return result.folder


def weights(folder: Path, name: str) -> dict[str, Any]:
    return load_file(folder / "agents" / name / "model.safetensors")


def test_training_goes_on_from_the_weights_of_equal_names(ended: Path, tmp_path: Path, capsys: Any) -> None:
    """With a learning rate of 0 they stay as they began."""
    fields = {
        **FIELDS,
        "agents": {**FIELDS["agents"], "new": {"model": {"mlp": {"hidden": [4]}}, "train": {"epochs": 2}}},
    }
    fields["flows"] = [{"from": "labels", "to": [*fields["agents"]], "objective": "ce"}]
    fields["train"] = {"epochs": 1, "optimizer": {"sgd": {"lr": 0.0}}}
    (tmp_path / "next.yaml").write_text(dump(fields))
    assert main(["run", str(tmp_path / "next.yaml"), "--from", str(ended), "--out", str(tmp_path), "--quiet"]) == 0
    said = capsys.readouterr().err
    assert f"new begins as the file says: {ended} has no weights of it" in said
    (folder,) = (tmp_path / "first").iterdir()
    for name in ("a", "b", "also"):
        for key, value in weights(ended, name).items():
            assert value.equal(weights(folder, name)[key]), (name, key)
    made = kdmesh.Mesh(**fields)
    assert made.begin_from(ended) == [f"new begins as the file says: {ended} has no weights of it"]
    again = made.run(backend="inline")
    assert {name: agent.weights_sha256 for name, agent in again.agents.items()} == {
        name: agent.weights_sha256
        for name, agent in kdmesh.Mesh.read(folder / "resolved.yaml").run(backend="inline").agents.items()
    }


def test_a_module_begins_with_them_too(ended: Path) -> None:
    module = kdmesh.load(ended / "agents" / "a")
    first = {key: value.clone() for key, value in module.state_dict().items()}
    mesh = kdmesh.Mesh(data=FIELDS["data"], train={"epochs": 1, "optimizer": {"sgd": {"lr": 0.0}}})
    for value in module.state_dict().values():
        value.zero_()
    mesh.agent("a", module)
    mesh.flow("labels", "a", objective="ce")
    assert mesh.begin_from(ended) == []
    ends = mesh.run(backend="inline")["a"].module.state_dict()
    assert all(value.equal(ends[key]) for key, value in first.items())


@pytest.mark.parametrize(
    ("agents", "folder", "what", "instead"),
    [
        ({"x": {"model": "mlp"}}, None, "no agent of this mesh has weights in", "agents of that run"),
        (None, "nowhere", "this is not a run's folder: ", "runs/<name>/<time>"),
        (None, ".", "this is not a run's folder: ", "runs/<name>/<time>"),
    ],
)
def test_what_is_no_beginning_is_refused(
    agents: Any, folder: str | None, what: str, instead: str, ended: Path, tmp_path: Path
) -> None:
    mesh = kdmesh.Mesh(**{**FIELDS, **({"agents": agents, "flows": []} if agents else {})})
    with pytest.raises(MeshError) as error:
        mesh.begin_from(ended if folder is None else tmp_path / folder)
    assert what in error.value.what and instead in (error.value.instead or "")


def test_a_folder_of_another_library_is_no_beginning_of_ours(ended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ended, tmp_path / "run")
    (folder / "agents" / "b" / "kdmesh.json").write_text('{"kdmesh": 1, "model": {"hf": {"path": "bert"}}}')
    with pytest.raises(MeshError) as error:
        kdmesh.Mesh(**FIELDS).begin_from(folder)
    assert error.value.what == f"b is of the model hf in {folder / 'agents' / 'b'}, and mlp here"
    assert error.value.where == "agents.b.model"


def test_an_unlike_model_is_refused_with_both_shapes(ended: Path) -> None:
    mesh = kdmesh.Mesh(**{**FIELDS, "agents": {**FIELDS["agents"], "a": {"model": {"mlp": {"hidden": [16]}}}}})
    mesh.begin_from(ended)
    with pytest.raises(MeshError) as error:
        mesh.run(backend="inline")
    assert error.value.where == "agents.a.weights"
