"""Finished runs that train for more epochs: bit for bit a run that was so long at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kdmesh
from kdmesh.cli import main
from kdmesh.errors import MeshError

DATA = {"dataset": "digits", "train": 96, "validation": 48, "test": 32}
MLP = {"model": {"mlp": {"hidden": [8]}}}
LABELS = {"from": "labels", "to": ["a", "b"], "objective": "ce"}


def fields(**changed: Any) -> dict[str, Any]:
    """Two peers that teach one another: one stage."""
    peers = [
        {"from": "a", "to": "b", "refresh": "epoch", "objective": "kl"},
        {"from": "b", "to": "a", "refresh": "step", "objective": "kl"},
    ]
    train = {"epochs": 2, "batch_size": 32, **changed.pop("train", {})}
    return {"data": DATA, "agents": {"a": MLP, "b": MLP}, "flows": [LABELS, *peers], "train": train} | changed


def run(out: Path, given: dict[str, Any], **asked: Any) -> Any:
    return kdmesh.Mesh(**given).run(backend="inline", out=out, **asked)


def longer(given: dict[str, Any], epochs: int) -> dict[str, Any]:
    return {**given, "train": {**given["train"], "epochs": epochs}}


def alike(one: Any, other: Any) -> None:
    """Weights, figures, updates and texts of what happened are equal."""
    for name in one.agents:
        assert one[name].weights_sha256 == other[name].weights_sha256, name
        assert one.summary["agents"][name]["metrics"] == other.summary["agents"][name]["metrics"]


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, "schedule": {"StepLR": {"step_size": 4}}, "accumulate": 3},
        {"keep_best": {"metric": "accuracy"}, "optimizer": {"adamw": {"lr": 0.1}}},
        {"early_stopping": {"patience": 50}, "evaluate_every": 2},
        {"schedule": {"constant": {"warmup": 5}}},
        {"ema": True},
    ],
    ids=["plain", "step schedule", "keep_best", "early_stopping", "warmup", "follower"],
)
def test_a_longer_run_is_the_run_of_so_many_epochs(tmp_path: Path, train: dict[str, Any]) -> None:
    given = fields(train={key: value for key, value in train.items() if key != "ema"})
    if "ema" in train:
        given["agents"] = {**given["agents"], "e": {**MLP, "update": {"ema": {"of": "a", "decay": 0.9}}}}
    short = run(tmp_path, given)
    once = run(tmp_path, longer(given, 5))
    on = run(tmp_path, given, resume=short.folder, epochs=5)
    alike(on, once)
    assert on.folder != short.folder
    assert on.folder.parent == short.folder.parent
    manifest = json.loads((on.folder / "manifest.json").read_text())
    assert manifest["raised"] == {"of": str(short.folder.resolve()), "epochs": {"train": 5}}
    assert manifest["mesh"]["train"]["epochs"] == 5
    alike(run(tmp_path, longer(given, 5), resume=on.folder, epochs=6), run(tmp_path, longer(given, 6)))


def chain(**student: Any) -> dict[str, Any]:
    """A teacher, and a student of it that waits until it has finished."""
    agents = {"t": MLP, "s": {**MLP, **student}}
    flows = [{"from": "labels", "to": "t", "objective": "ce"}, {"from": "t", "to": "s", "objective": "kl"}]
    return {"data": DATA, "agents": agents, "flows": flows, "train": {"epochs": 2, "batch_size": 32}}


def test_what_learns_from_a_longer_teacher_begins_anew(tmp_path: Path) -> None:
    given = chain()
    short = run(tmp_path, given)
    once = run(tmp_path, {**given, "agents": {"t": {**MLP, "train": {"epochs": 4}}, "s": MLP}})
    on = run(tmp_path, given, resume=short.folder, epochs={"t": 4})
    alike(on, once)
    begun = [json.loads(line) for line in (on.folder / "events.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in begun if line["event"] == "stage_started"] == ["t", "s"]
    assert [line["stage"] for line in begun if line["event"] == "stage_resumed"] == ["t"]


def test_a_student_alone_trains_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, and its teacher is not trained again."""
    given = chain()
    short = run(tmp_path / "short", given)
    assert main(["resume", str(short.folder), "--epochs", "s=3", "--quiet"]) == 0
    said = capsys.readouterr().err
    (folder,) = {*short.folder.parent.iterdir()} - {short.folder}
    assert f"trains on in {folder}; {short.folder} stays as it is" in said
    once = run(tmp_path / "once", {**given, "agents": {"t": MLP, "s": {**MLP, "train": {"epochs": 3}}}})
    for name in ("t", "s"):
        file = Path("agents") / name / "model.safetensors"
        assert (folder / file).read_bytes() == (once.folder / file).read_bytes()
    kinds = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert kinds.count("stage_finished_before") == 1
    assert kinds.count("run_finished") == 1


def test_broken_off_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any run does: what is made is the folder of an interrupted one."""
    from kdmesh.engine import stage

    given = fields()
    short = run(tmp_path, given)
    once = run(tmp_path, longer(given, 4))
    finish = stage.StageRun.checkpoint

    def broken(self: Any, finished: bool = False) -> Any:
        if finished:
            raise RuntimeError("gone")
        yield from finish(self, finished)

    with monkeypatch.context() as patch:
        patch.setattr(stage.StageRun, "checkpoint", broken)
        with pytest.raises(Exception, match="gone"):
            run(tmp_path, given, resume=short.folder, epochs=4)
    (folder,) = {*short.folder.parent.iterdir()} - {short.folder, once.folder}
    alike(run(tmp_path, longer(given, 4), resume=folder), once)


@pytest.mark.parametrize(
    ("given", "epochs", "what"),
    [
        (fields(train={"schedule": "cosine"}), 4, "cosine depends on how many updates there are in all"),
        (fields(train={"schedule": {"constant": {"warmup": 0.5}}}), 4, "constant depends on how many updates"),
        (fields(train={"accumulate": 4}), 4, "the last update was of fewer than 4 batches"),
        (fields(train={"steps": 4}), 4, "the mesh trains for 4 steps, not epochs"),
        (fields(), 2, "the mesh has 2 epochs, and 2 are not more"),
        (fields(), {"c": 4}, "no agent is called 'c'"),
        (fields(agents={"a": {**MLP, "train": {"epochs": 1}}, "b": MLP}), {"a": 3}, "a ended 3 steps before its stage"),
        (fields(train={"early_stopping": {"patience": 1}, "optimizer": {"sgd": {"lr": 0.0}}, "epochs": 6}), 9,
         "a, b stopped early: more epochs would not train it"),
        (fields(program=[{"of": ["a", "b"], "repeat": 2, "do": [{"lesson": "main", "epochs": 1}]}]), 4,
         "nobody would train longer by it"),
        (fields(program=[{"of": ["a", "b"], "repeat": 2, "do": [{"lesson": "main"}]}]), 4,
         "trains in rounds, or in several lessons"),
    ],
)  # fmt: skip
def test_refused_where_it_would_not_be_the_same(tmp_path: Path, given: Any, epochs: Any, what: str) -> None:
    folder = run(tmp_path, given).folder
    with pytest.raises(MeshError, match=what) as caught:
        run(tmp_path, given, resume=folder, epochs=epochs)
    assert caught.value.instead
    assert [path for path in folder.parent.iterdir() if path != folder] == []


def test_what_is_no_whole_run_of_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = fields()
    several = run(tmp_path / "several", given, seeds=2).folder
    with pytest.raises(MeshError, match="it was run with several seeds"):
        run(tmp_path, given, resume=several, epochs=4)
    folder = run(tmp_path / "one", given).folder
    with pytest.raises(MeshError, match="what this run was made of has changed"):
        run(tmp_path, longer(given, 3), resume=folder, epochs=4)
    with pytest.raises(MeshError, match="no run is named"):
        run(tmp_path, given, epochs=4)
    for wrong in (0, True, {"a": "3"}, {3: 3}):
        with pytest.raises(MeshError, match=r"epochs|found int"):
            run(tmp_path, given, resume=folder, epochs=wrong)
    for words in (["4x"], ["a=4", "a=5"], ["=4"], [""]):
        flags = [flag for word in words for flag in ("--epochs", word)]
        assert main(["resume", str(folder), *flags]) == 2
        assert "--epochs" in capsys.readouterr().err
    for path in (folder / "checkpoints").rglob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(MeshError, match="has no checkpoint from which it could go on"):
        run(tmp_path, given, resume=folder, epochs=4)
    (folder / "summary.json").unlink()
    with pytest.raises(MeshError, match="this run has not finished"):
        run(tmp_path, given, resume=folder, epochs=4)


def test_the_finished_run_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run(tmp_path, fields()).folder)]) == 2
    assert "--epochs N" in capsys.readouterr().err
