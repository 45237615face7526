"""A run that breaks off anywhere and is taken up again ends with the same bits, rounds and counts."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from accounted import accounts
from few_texts import few_samples, topology

from kdmesh.backends.inline import InlineBackend
from kdmesh.contracts.events import Trained
from kdmesh.contracts.run_files import LOG
from kdmesh.engine import teach
from kdmesh.engine.home import StageHome
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.report.log import Log
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import bundled, parse

COUNTS = ("epochs", "rounds", "digest_epochs")
MIXED = {
    "name": "mixed",
    "data": {"dataset": "digits", "train": 150, "validation": 60, "test": 60},
    "agents": {
        "t": {"model": {"resnet": {"width": 4}}, "train": {"accumulate": 3, "schedule": "cosine"}},
        "s": {"model": {"mlp": {"hidden": [16]}}, "train": {"early_stopping": {"patience": 1}, "epochs": 6}},
        "e": {"update": {"ema": {"of": "s", "decay": 0.9}}},
        "p": {"model": {"mlp": {"hidden": [16]}}, "train": {"optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}}},
    },
    "flows": [
        {"from": "labels", "to": ["t", "s", "p"], "objective": "ce"},
        {"from": "t", "to": "s", "objective": {"kl": {"temperature": 2}}, "refresh": "3 steps", "stale": "snapshot"},
        {"from": "p", "to": "s", "objective": "kl", "refresh": "epoch", "stale": "recorded"},
        {"from": "s", "to": "p", "objective": "kl", "refresh": "2 steps"},
        {"from": "p", "to": "p", "objective": "mse", "refresh": "epoch"},
        {"from": "e", "to": "p", "objective": "mse", "refresh": "step", "weight": {"start": 0, "end": 1, "epochs": 2}},
        {"from": "t", "to": "p", "objective": "hint", "tap": {"of": "head", "to": "layers.0"}, "refresh": "epoch"},
    ],
    "train": {"epochs": 3, "batch_size": 32, "optimizer": {"adamw": {"lr": 0.01}}},
}


class Killed(BaseException):
    """The process is gone."""


def shortened(value: Any) -> Any:
    """The same mesh with no more than two epochs or rounds of anything."""
    if isinstance(value, dict):
        return {
            key: min(item, 2) if isinstance(item, int) and key in COUNTS else shortened(item)
            for key, item in value.items()
        }
    return [shortened(item) for item in value] if isinstance(value, list) else value


def mesh(name: str, placement: str) -> MeshSpec:
    """A bundled topology on few samples, or the mesh with a bit of everything."""
    if name == "mixed":
        return parse({**MIXED, "placement": placement})
    fields = shortened(topology(name).dump())
    placed = {} if "parties" in fields else {"placement": placement}  # parties say who lives where
    return parse({**fields, "data": few_samples(name, fields["data"], 192), **placed})


def outcome(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on breaks."""
    agents = {
        name: [agent["weights_sha256"], agent["updates"], agent["forwards"], agent["metrics"]]
        for name, agent in summary["agents"].items()
    }
    return {"agents": agents, "rounds": summary["rounds"], "consensus": summary["consensus"]}


def run(
    spec: MeshSpec, monkeypatch: pytest.MonkeyPatch, last: int | None = None, pace: float | None = 1e9, **more: Any
) -> tuple[Any, int]:
    """Run, and break off at the host's call of number ``last``; the summary and the number of calls.

    ``pace``: seconds that a chunk may take, so many that there are as many calls on a busy machine as on an idle one.
    """
    calls = 0
    inner = InlineBackend.call

    def call(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        return inner(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(InlineBackend, "call", call)
        patch.setattr(teach, "SECONDS", teach.SECONDS if pace is None else pace)
        summary, _, _ = run_once(Request(spec, "inline", checkpoint_seconds=0, **more))
    return summary, calls


BREAKS = [  # where agents are, and the fifth of a run's calls at which it breaks off: in turn one of four a mesh
    pytest.param(name, placement, fifth, marks=[pytest.mark.slow] if (number + turn) % (4 if number else 2) else [])
    for number, name in enumerate(("mixed", *sorted({*bundled()} - {"api-classifier"})))  # which asks a server
    for turn, (placement, fifth) in enumerate((("together", 1), ("spread", 2), ("spread", 4), ("together", 3)))
]


@pytest.mark.parametrize(("name", "placement", "fifth"), BREAKS)
def test_a_run_broken_off_anywhere_goes_on_to_equal_bits(
    name: str, placement: str, fifth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = mesh(name, placement)
    keys = accounts(spec, tmp_path / "keys")
    summary, calls = run(spec, monkeypatch, out=tmp_path / "whole", privacy=keys)
    with pytest.raises(KeyboardInterrupt):
        run(spec, monkeypatch, calls * fifth // 5, out=tmp_path / "broken", privacy=keys)
    (folder,) = (tmp_path / "broken").glob("*/*")
    with suppress(KeyboardInterrupt):  # and once more, a little later, if it is not done by then
        run(spec, monkeypatch, 12, resume=folder, privacy=keys)
    again, _ = run(spec, monkeypatch, resume=folder, privacy=keys)
    assert outcome(again) == outcome(summary)
    (whole,) = (tmp_path / "whole").glob("*/*")
    assert curves(folder) == curves(whole) != {}


def curves(folder: Path) -> dict[tuple[str, int], Any]:
    """What a log tells of losses, by stage and step; of what was done twice, it tells the same."""
    found: dict[tuple[str, int], Any] = {}
    for event in Log.read(folder / LOG).events:
        if isinstance(event, Trained):
            told = (event.epoch, event.losses, event.flows)
            assert found.setdefault((event.stage, event.step), told) == told
    return found


CUT = {  # two that exchange live, in windows; then one alone, in chunks
    "name": "cut",
    "data": {"dataset": "digits", "train": 100, "validation": 40, "test": 40},
    "agents": {name: {"model": {"mlp": {"hidden": [8]}}} for name in ("p", "q", "s")},
    "flows": [
        {"from": "labels", "to": ["p", "q", "s"], "objective": "ce"},
        {"from": "p", "to": "q", "objective": "kl"},
        {"from": "q", "to": "p", "objective": "kl"},
        {"from": "p", "to": "s", "objective": "mse", "refresh": "once"},
    ],
    "train": {"steps": 42, "batch_size": 32, "optimizer": {"adamw": {"lr": 0.01}}},
}


@pytest.mark.parametrize("placement", ["spread", "together"])
def test_losses_are_told_alike_however_steps_are_cut_and_wherever_it_breaks_off(
    placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, draw = parse({**CUT, "placement": placement}), Random(placement)
    run_once(Request(spec, "inline", out=tmp_path))
    (folder,) = (tmp_path / "cut").iterdir()
    whole = curves(folder)
    assert {step for _, step in whole} >= {4, 16, 32, 42} and len({stage for stage, _ in whole}) > 1
    times = iter(lambda: draw.choice([0.01, 0.1, 1.0, 5.0]), None)
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr(teach, "time", clock)  # a pace at random: chunks of 1 to hundreds of steps
    monkeypatch.setattr(StageHome, "due", property(lambda self: draw.random() < 0.3))
    broken = 0
    for turn in range(3):
        monkeypatch.setattr(teach, "WINDOW", draw.randint(1, 9))
        monkeypatch.setattr(teach, "AHEAD", draw.randint(0, 3))
        where: dict[str, Path] = {"out": tmp_path / str(turn)}
        for last in (draw.randint(10, 40), draw.randint(10, 40), None):
            try:
                run(spec, monkeypatch, last, pace=None, **where)
            except KeyboardInterrupt:
                broken += 1
            (folder,) = (tmp_path / str(turn)).glob("*/*")
            where = {"resume": folder}
        assert curves(folder) == whole
    assert broken > 2


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = mesh("deep-mutual", "together")
    summary, calls = run(spec, monkeypatch, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(spec, monkeypatch, calls * 2 // 3, out=tmp_path / "cut")
    (folder,) = (tmp_path / "cut").glob("*/*")
    stage = next((folder / "checkpoints").iterdir())
    newest = sorted(stage.glob("*/manifest.json"))[-1].parent
    weights = newest / "hosts" / "host0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    again, _ = run(spec, monkeypatch, resume=folder)
    assert outcome(again) == outcome(summary)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert any(newest.name in event.get("text", "") and "is passed over" in event["text"] for event in events)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"epochs": 1}}, "mesh.train.epochs: was 20, is 1"),
        ({"data": {"dataset": "digits", "train": 100}}, "mesh.data.train: was 192, is 100"),
    ],
)
def test_a_changed_mesh_or_data_is_refused_with_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    spec = mesh("single-teacher", "together")
    with pytest.raises(KeyboardInterrupt):
        run(spec, monkeypatch, 9, out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    with pytest.raises(MeshError) as caught:
        run(parse({**spec.dump(), **change}), monkeypatch, resume=folder)
    assert said in caught.value.what and caught.value.file == str(folder)


def test_a_checkpoint_that_cannot_be_written_stops_the_run_with_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdmesh.hosts import checkpoint

    spec = mesh("deep-mutual", "together")
    summary, _ = run(spec, monkeypatch, out=tmp_path / "whole")
    inner, written = checkpoint.save_file, []

    def full(tensors: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 4:
            path.write_bytes(b"cut sh")
            raise OSError(28, "No space left on device")
        inner(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(MeshError, match=r"could not be written: .*No space left.*\n.*kdmesh resume") as caught:
        run(spec, monkeypatch, out=tmp_path / "cut")
    assert caught.value.exit_code == 1
    (folder,) = (tmp_path / "cut").glob("*/*")
    again, _ = run(spec, monkeypatch, resume=folder)
    assert outcome(again) == outcome(summary)
