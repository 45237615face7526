"""Every input of a run counts: a run that goes on refuses one that has changed, and notes other versions."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import kdmesh
from kdmesh.contracts.events import Note, Progress
from kdmesh.engine.inputs import inputs
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.engine.resume import asked, refuse_edits
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse

NET = """\
from torch import nn
class Net(nn.Sequential):
    def __init__(self): super().__init__(nn.Flatten(), nn.Linear(64, 10))
"""


def mesh(root: Path, **agents):
    save_file(nn.Linear(64, 10).state_dict(), root / "t.safetensors")
    (root / "beside_nets.py").write_text(NET)
    return parse(
        {
            "data": {"dataset": "digits", "train": 64, "validation": 32, "test": 32},
            "agents": {"s": {"model": {"mlp": {"hidden": [4]}}}, "own": {"model": "beside_nets:Net"}, **agents},
            "flows": [{"from": "labels", "to": ["s", "own"], "objective": "ce"}],
            "train": {"epochs": 2, "batch_size": 32},
        }
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Begin a run and interrupt it: the request that goes on."""
    monkeypatch.syspath_prepend(tmp_path)

    def stop(event):
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    request = Request(
        mesh(tmp_path),
        "inline",
        out=tmp_path / "runs",
        source_text="agents: {}\n",
        listeners=(stop,),
        checkpoint_seconds=0,
    )
    with pytest.raises(KeyboardInterrupt):
        run_once(request)
    (folder,) = (tmp_path / "runs").glob("*/*")
    yield Request(request.spec, "inline", resume=folder)
    sys.modules.pop("beside_nets", None)


def test_what_has_not_changed_goes_on(run):
    assert run_once(run)[0]["agents"].keys() == {"s", "own"}


def test_code_that_has_changed_is_refused_before_it_is_imported(run, tmp_path):
    (tmp_path / "beside_nets.py").write_text(f"{NET}\nprint('changed')\n")
    with pytest.raises(MeshError, match=r"code\.beside_nets: was '[0-9a-f]{64}', is '[0-9a-f]{64}'"):
        refuse_edits(run.resume)
    with pytest.raises(MeshError, match=r"code\.beside_nets"):
        run_once(run)


def test_an_edited_mesh_yaml_is_noticed(run):
    (run.resume / "mesh.yaml").write_text("agents: {s: {}}\n")
    with pytest.raises(MeshError, match=r"mesh\.yaml: was edited"):
        run_once(run)
    (run.resume / "mesh.yaml").unlink()
    refuse_edits(run.resume)


@pytest.mark.parametrize("name", ["events.jsonl", "checkpoints", "agents", "stray"])
def test_a_link_that_leads_out_is_refused_and_nothing_is_written(run, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.resume / "checkpoints").rename(outside / "checkpoints")
    (run.resume / "events.jsonl").rename(outside / "events.jsonl")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    (run.resume / name).symlink_to(outside / name)
    with pytest.raises(MeshError, match=f"{name} links outside"):
        run_once(run)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda told: told.pop("begun"), "no begun"),
        (lambda told: told.pop("data"), "no data"),
        (lambda told: told.pop("teachers"), "no teachers"),
        (lambda told: told.update(mesh=[]), "no mesh"),
        (lambda told: told["begun"].pop("backend"), "begun.backend"),
        (lambda told: told["begun"].update(beside=[1]), "begun.beside"),
        (lambda told: told["begun"].update(strict_signals="no"), "begun.strict_signals"),
    ],
)
def test_a_manifest_that_lacks_something_is_no_runs(run, edit, said):
    path = run.resume / "manifest.json"
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))
    with pytest.raises(MeshError, match=f"not a run's folder: .*{said}"):
        asked(run.resume)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\udcff"])
def test_a_manifest_that_is_none_is_no_runs(run, text):
    (run.resume / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MeshError, match="not a run's folder"):
        asked(run.resume)


def test_other_versions_are_noted(run):
    path = run.resume / "manifest.json"
    told = json.loads(path.read_text())
    told["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(told))
    heard = []
    run_once(replace(run, listeners=(heard.append,)))
    assert "imports beside_nets:Net (agents.own.model)" in [getattr(event, "text", None) for event in heard]
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert notes[-1:] == [f"torch was 1.0, is {torch.__version__}: weights may differ in their last bits"]


def test_folders_of_models_and_tokenizers_count_by_their_files(tmp_path):
    for name in ("model", "words"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(name)
    (tmp_path / "model" / "old.bin").write_bytes(b"never read")
    (tmp_path / "code.py").write_text("")
    settings = {
        "path": str(tmp_path / "model"),
        "tokenizer": str(tmp_path / "words"),
        "trust_remote_code": str(tmp_path),
    }
    spec = parse({"agents": {"t": {"model": {"hf": settings}}, "s": {"model": {"mlp": {"activation": "relu"}}}}})
    before = inputs(spec)
    assert {place: list(files) for place, files in before.items()} == {
        "agents.t.model.path": ["tokenizer.json"],
        "agents.t.model.tokenizer": ["tokenizer.json"],
        "agents.t.model.trust_remote_code": ["code.py"],
    }
    (tmp_path / "words" / "tokenizer.json").write_text("others")
    after = inputs(spec)
    assert [place for place in before if before[place] != after[place]] == ["agents.t.model.tokenizer"]


def test_modules_given_from_python_count_by_their_weights(tmp_path):
    def made(value: float):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        for parameter in net.parameters():
            nn.init.constant_(parameter, value)
        found = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"epochs": 2, "batch_size": 32})
        found.agent("t", net, update="frozen")
        found.agent("s", nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))  # drawn anew each time
        found.flow("t", "s", objective="kl")
        return found

    first = made(0.5).run(backend="inline", out=tmp_path).folder
    (first / "summary.json").unlink()
    with pytest.raises(MeshError, match=r"given\.t: was"):
        made(0.25).run(backend="inline", resume=first)
    made(0.5).run(backend="inline", resume=first)
    said = [json.loads(line).get("text") for line in (first / "events.jsonl").read_text().splitlines()]
    assert "the module given for s has other weights than it had when the run began" in said


def test_files_of_the_folder_of_plugins_count(run, tmp_path, monkeypatch):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "watcher.py").write_text("x = 1\n")
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(plugins))
    with pytest.raises(MeshError, match=r"plugins\.watcher: was None, is '"):
        run_once(run)
