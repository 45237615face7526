"""What a run leaves behind, and what can be made of it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import kdmesh
from kdmesh.builtin.datasets.digits import digits
from kdmesh.engine import notes
from kdmesh.errors import MeshError
from kdmesh.report.paired import over_seeds
from kdmesh.report.tables import final_table
from kdmesh.spec.read import read_mesh

MESH = """\
name: small
data: {dataset: digits, train: 64}
agents:
  t1: {model: {mlp: {hidden: [16]}}}
  t2: {model: {cnn: {width: 4}}}
  s: {model: {mlp: {hidden: [8]}}}
connect:
  - ensemble: {teachers: [t1, t2], student: s}
train: {epochs: 1, batch_size: 32}
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> kdmesh.api.Result:
    home = tmp_path_factory.mktemp("home")
    (home / "small.yaml").write_text(MESH)
    return kdmesh.Mesh.read(home / "small.yaml").run(backend="inline", out=home / "runs", controls=True)


def folder(result: Any) -> Path:
    assert result.folder is not None
    return result.folder


def test_the_folder_holds_what_was_asked_planned_and_found(result: Any) -> None:
    root = folder(result)
    assert root.parent.name == "small"
    assert {path.name for path in root.iterdir()} >= {
        "resolved.yaml", "events.jsonl", "summary.json", "manifest.json", "agents", "checkpoints",
    }  # fmt: skip
    assert sorted(path.name for path in (root / "agents").iterdir()) == ["s", "t1", "t2"]
    kinds = [json.loads(line)["event"] for line in (root / "events.jsonl").read_text().splitlines()]
    assert kinds[:2] == ["hosts_opening", "run_started"] and kinds[-1] == "run_finished"
    assert kinds.count("stage_started") == kinds.count("stage_finished") == 3


def test_the_manifest_says_what_the_run_depends_on(result: Any) -> None:
    facts = json.loads((folder(result) / "manifest.json").read_text())
    table = digits()
    assert facts["data"]["x_sha256"] == hashlib.sha256(table.x.numpy().tobytes()).hexdigest()
    assert facts["data"]["streams"]["train"] == 64
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["data"]["licence"] == table.licence


def test_the_resolved_mesh_runs_to_the_same_weights(result: Any) -> None:
    again = kdmesh.Mesh.read(folder(result) / "resolved.yaml").run(backend="inline")
    assert {name: agent.weights_sha256 for name, agent in again.agents.items()} == {
        name: agent.weights_sha256 for name, agent in result.agents.items()
    }


@pytest.mark.parametrize("name", ["t1", "t2", "s"])
def test_an_agent_loaded_again_predicts_the_same(result: Any, name: str) -> None:
    path = folder(result) / "agents" / name
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(kdmesh.load(path)(x), result[name].module(x))
    assert not kdmesh.load(path).training
    assert f'kdmesh.load("{name}")' in (path / "README.md").read_text()
    assert load_file(path / "model.safetensors").keys() == result[name].module.state_dict().keys()


def test_a_folder_that_is_no_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="not an agent's folder"):
        kdmesh.load(tmp_path)


def test_checkpoints_hold_every_stage_at_its_start_and_end(result: Any) -> None:
    stages = folder(result) / "checkpoints"
    assert sorted(path.name for path in stages.iterdir()) == ["s", "t1", "t2"]
    state = load_file(stages / "s" / "0002" / "hosts" / "host0.safetensors")
    own = result["s"].module.state_dict()
    assert all(torch.equal(state[f"weights/s/{name}"], value) for name, value in own.items())
    assert any(name.startswith("optimizer/s/") for name in state)


def test_a_student_is_run_alone_and_with_its_best_teacher(result: Any) -> None:
    controls = result.summary["controls"]
    assert set(controls) == {"s"} and set(controls["s"]) == {"alone", "best_teacher"}
    assert controls["s"]["best_teacher"]["teacher"] == result.summary["best_teacher"]
    assert set(controls["s"]["alone"]) == {"validation", "test"}
    assert set(controls["s"]["best_teacher"]) == {"teacher", "validation", "test"}


def test_the_control_alone_is_the_student_with_labels_only(result: Any) -> None:
    made = kdmesh.Mesh(data={"dataset": "digits", "train": 64}, train={"epochs": 1, "batch_size": 32})
    made.agent("s", {"mlp": {"hidden": [8]}})
    made.flow("labels", "s", objective="ce")
    alone = made.run(backend="inline")
    assert alone["s"].metrics == result.summary["controls"]["s"]["alone"]


def test_controls_where_agents_share_weights_start_alike_and_hear_several_consensus_nodes(
    mesh: Any, tmp_path: Path
) -> None:
    made = mesh({"t1": {}, "t2": {}, "u": {}, "p": {}, "s": {"init_of": "p"}, "view": {"weights_of": "p"}})
    for node, members in (("c", ["t1", "t2"]), ("d", ["u"])):
        made.consensus(node, "mean")
        made.flow(members, node)
        made.flow(node, ["s", "view"], objective="kl")
    controls = made.run(backend="inline", out=tmp_path, controls=True).summary["controls"]
    assert set(controls) == {"s", "view"}
    assert all(set(found) == {"alone", "best_teacher"} for found in controls.values())
    assert all("test" in made for found in controls.values() for made in found.values())


def test_controls_of_agents_with_settings_seeds_and_weights_of_their_own(mesh: Any, tmp_path: Path) -> None:
    first = mesh(["s"])
    first.flow("labels", "s", objective="ce")
    weights = first.run(backend="inline", out=tmp_path / "first").folder / "agents" / "s" / "model.safetensors"
    own = {"epochs": 2, "batch_size": 16, "optimizer": "sgd", "clip": 1.0}
    agents = {"t1": {"train": own, "seed": 3}, "t2": {"train": own}, "s": {"weights": str(weights), "train": own}}
    made = mesh(agents, streams={"own": {"of": "train", "shards": {"by": "iid", "of": ["t1", "t2"]}}})
    made.flow("labels", ["t1", "t2"], stream="own", objective="ce")
    made.consensus("c", "mean")
    made.flow(["t1", "t2"], "c", refresh="once")
    made.flow("c", "s", objective="kl")
    result = made.run(backend="inline", out=tmp_path, controls=True)
    found = result.summary
    assert all("test" in found["controls"]["s"][which] for which in ("alone", "best_teacher")), found["notes"]
    said = [path.read_text() for path in folder(result).glob("controls/*/events.jsonl")]
    assert len(said) == 2 and not any("it was never trained" in text for text in said)


def test_a_student_is_compared_with_the_best_of_its_own_teachers(mesh: Any, tmp_path: Path) -> None:
    made = mesh(["t1", "t2", "t3", "t4", "s", "z"])
    made.connect("ensemble", teachers=["t1", "t2"], student="s")
    made.connect("ensemble", teachers=["t3", "t4"], student="z")
    summary = made.run(backend="inline", out=tmp_path, controls=True).summary
    for student, teachers in (("s", ("t1", "t2")), ("z", ("t3", "t4"))):
        right = {name: summary["agents"][name]["metrics"]["validation"]["accuracy"] for name in teachers}
        best = max(right, key=right.__getitem__)
        assert summary["controls"][student]["best_teacher"]["teacher"] == best
        own, other = (summary["agents"][name]["metrics"]["test"]["accuracy"] for name in (student, best))
        assert over_seeds([summary])["differences"][student]["best teacher"]["mean"] == own - other
    starred = [line.split()[0] for line in final_table(summary).lines(200) if " * " in line]
    assert starred == [
        name for name in summary["agents"] if name in (summary["agents"][s]["best_teacher"] for s in "sz")
    ]


def test_an_assistant_is_a_student_s_own_teacher_and_who_teaches_the_assistant_only_is_none(
    mesh: Any, tmp_path: Path
) -> None:
    best = {}
    for dense in (False, True):
        made = mesh(["t", "a", "s"])
        made.agent("bad", {"mlp": {"hidden": [1]}}, train={"optimizer": {"sgd": {"lr": 1e-12}}})
        links = [["bad", "t"], "a", "s"] if dense else ["t", "a", "s"]
        made.connect("chain", agents=links, **({"dense": True} if dense else {}))
        if not dense:
            made.flow("labels", "bad", objective="ce")
        out = {"out": tmp_path, "controls": True} if dense else {}
        summary = made.run(backend="inline", **out).summary
        best[dense] = {name: facts["best_teacher"] for name, facts in summary["agents"].items()}
    assert best[False] == {"t": None, "a": "t", "s": "a", "bad": None}
    assert best[True] == {"t": None, "a": "t", "s": max("ta", key=lambda name: validation(summary, name)), "bad": None}
    controls = summary["controls"]
    assert {name: made["best_teacher"]["teacher"] for name, made in controls.items()} == {
        "a": "t",
        "s": best[True]["s"],
    }
    assert all("test" in made[which] for made in controls.values() for which in made)


def validation(summary: dict[str, Any], name: str) -> float:
    found: float = summary["agents"][name]["metrics"]["validation"]["accuracy"]
    return found


def test_what_is_noted_of_a_control_stands_beneath_the_table(
    mesh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mesh(["t1", "t2", "s"], name="m")
    made.connect("ensemble", teachers=["t1", "t2"], student="s")
    monkeypatch.setattr(notes, "at_chance", lambda plan, *rest: [f"odd {plan.spec.name}", "the same"])
    said = made.run(backend="inline", out=tmp_path, controls=True).summary["notes"]
    assert said == ["odd m", "the same", "s alone: odd m.s.alone", "s by the best teacher only: odd m.s.best"]


def test_two_runs_in_one_second_have_folders_of_their_own(mesh: Any, tmp_path: Path) -> None:
    made = mesh(["s"], train={"steps": 1})
    made.flow("labels", "s", objective="ce")
    roots = {made.run(backend="inline", out=tmp_path).folder for _ in range(2)}
    assert len(roots) == 2


def test_the_file_is_kept_as_given(tmp_path: Path) -> None:
    from kdmesh.engine.launch import run_once
    from kdmesh.engine.request import Request

    (tmp_path / "small.yaml").write_text(MESH)
    spec = read_mesh(tmp_path / "small.yaml", ["train.steps=1"])
    _, found, _ = run_once(Request(spec, "inline", out=tmp_path, source_text=MESH))
    assert found is not None and (found.root / "mesh.yaml").read_text() == MESH


def test_a_control_with_one_source_goes_without_a_rule_that_needs_all(mesh: Any, tmp_path: Path) -> None:
    made = mesh(["t1", "t2", "s"])
    made.connect("ensemble", teachers=["t1", "t2"], student="s", consensus={"weighted": {"weights": [1, 2]}})
    summary = made.run(backend="inline", out=tmp_path, controls=True).summary
    controls = summary["controls"]["s"]
    assert not any("no such control" in note for note in summary["notes"])
    assert controls["best_teacher"]["test"]["accuracy"] > 0 and controls["alone"]["test"]["accuracy"] > 0
