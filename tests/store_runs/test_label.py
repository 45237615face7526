"""Labelling ahead of runs: what it writes is what runs ask for, to the bit; it goes on after kills; what it refuses."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import PATIENCE, ROOT, processes
from ray.exceptions import ActorDiedError, OutOfMemoryError
from small_runs import mesh, said
from test_stored_topologies import DRAWS, frozen, left, made, short

from kdmesh.backends.ray_data import RayPool
from kdmesh.cli import main
from kdmesh.engine.label import Asked, Far, label
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import dump
from kdmesh.store import Store

COUNTED = {"augment": ["noise"], "draws": 4}
KINDS: dict[str, dict[str, Any]] = {
    "once": {"flow": {"refresh": "once"}},
    "live": {"flow": {"refresh": "step"}},
    "views": {"flow": {"refresh": "step"}, "teacher": {"view": COUNTED}, "train": {"epochs": 6}},
    "fewer views": {"flow": {"refresh": "step"}, "teacher": {"view": COUNTED}, "train": {"epochs": 3}},
    "a view, once": {"flow": {"refresh": "once"}, "teacher": {"view": {**COUNTED, "draws": 1}}},
    "hidden": {"flow": {"objective": "hint", "tap": {"of": "layers.0", "to": "layers.0"}, "refresh": "step"}},
    "int8": {"flow": {"refresh": "step"}, "teacher": {"answers": {"form": "int8"}}},
    "top k": {"flow": {"signal": {"top_k": {"k": 2}}, "refresh": "step"}},
    "smaller forwards": {"flow": {"refresh": "step"}, "train": {"forward_size": 16}},
}


def of(kind: str = "live", **more: Any) -> MeshSpec:
    """A small mesh on a few of the digits."""
    fields = {**mesh(**{**KINDS[kind], **more})._fields, "data": {"dataset": "digits"}}
    fields["streams"] = {"few": {"of": "train", "size": 200}}
    fields["flows"] = [{**flow, "stream": "few"} for flow in fields["flows"]]
    return parse(fields)


def trained(spec: MeshSpec, store: str | Path) -> dict[str, Any]:
    summary, _, _ = run_once(Request(spec, "inline", store=str(store)))
    return summary


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_after_it_forwards_nothing_and_has_the_bits_of_a_live_one(kind: str, tmp_path: Path) -> None:
    spec, told = of(kind), list[Far]()
    done = label(Asked(spec, ("t",), str(tmp_path / "kept")), told.append).agents["t"]
    assert done.there == 0 and done.rows == done.done.forwarded == done.done.written > 0 and done.done.kept > 0
    assert told[-1].done.rows == done.rows and told[-1].done.forwards == done.forwards
    without, warm = trained(spec, "off"), trained(spec, tmp_path / "kept")
    assert said(without) == said(warm)
    assert warm["store"]["all"]["forwarded"] == warm["agents"]["t"]["forwards"]["made"] == 0
    cold = trained(spec, tmp_path / "other")
    assert done.rows == cold["store"]["all"]["written"]  # no more than a run asks for
    for store in ("kept", "other"):
        again = label(Asked(spec, (), str(tmp_path / store))).agents["t"]
        assert (again.rows, again.there, again.done.forwarded) == (done.rows, done.rows, 0)


@pytest.mark.parametrize(("name", "draws"), DRAWS)
def test_bundled_topologies(name: str, draws: int, tmp_path: Path) -> None:
    fields = short(name, 2)
    frozen(fields, {"augment": ["noise"], "draws": draws})
    live = made(fields, tmp_path / "cold")
    if left(live):
        return  # on this machine
    label(Asked(parse(fields), (), str(tmp_path / "kept")))
    warm = made(fields, tmp_path / "kept")
    assert warm["store"]["all"]["forwarded"] == 0 and not left(warm)
    assert {name: one["weights_sha256"] for name, one in warm["agents"].items()} == {
        name: one["weights_sha256"] for name, one in live["agents"].items()
    }


def test_a_teacher_in_a_file_is_not_loaded_after_it(tmp_path: Path) -> None:
    spec = of("live", teacher={"update": "grad"})
    _, folder, _ = run_once(Request(spec, "inline", store="off", out=tmp_path / "first"))
    assert folder is not None
    path = str(folder.root / "agents" / "t" / "model.safetensors")
    spec = of("live", teacher={"weights": path, "seed": None})
    label(Asked(spec, ("t",), str(tmp_path / "kept")))
    warm = trained(spec, tmp_path / "kept")
    assert said(warm) == said(trained(spec, "off"))
    assert warm["store"]["not_loaded"] == ["t"] and warm["store"]["all"]["forwarded"] == 0


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["once", "views"])
def test_actors_of_ray_write_the_same_bits(kind: str, tmp_path: Path) -> None:
    spec = of(kind)
    done = label(Asked(spec, ("t",), str(tmp_path / "kept"), actors=2)).agents["t"]
    assert done.rows == done.done.written > 0 and done.there == 0
    without, warm = trained(spec, "off"), trained(spec, tmp_path / "kept")
    assert said(without) == said(warm) and warm["store"]["all"]["forwarded"] == 0
    assert warm["store"]["all"]["foreign"] == 0
    again = label(Asked(spec, ("t",), str(tmp_path / "kept"), actors=2)).agents["t"]
    assert again.there == again.rows


@pytest.mark.ray
def test_what_an_actor_raises_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = of("once")
    monkeypatch.setattr("kdmesh.engine.label._place", lambda store: str(store))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "v1").write_text("in the way", encoding="utf-8")
    with pytest.raises(RunFailed, match="what t says is not kept: the store cannot be written"):
        label(Asked(spec, ("t",), str(tmp_path / "kept"), actors=1))


@pytest.mark.ray
def test_an_actor_that_is_killed_costs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    flag = tmp_path / "flag"
    spec = of("live", teacher={"model": {"mortal:Mortal": {"flag": str(flag)}}})
    flag.write_text(str(os.getpid()), encoding="utf-8")
    done = label(Asked(spec, ("t",), str(tmp_path / "kept"), actors=2)).agents["t"]
    assert not flag.exists()  # one was
    assert done.rows == done.done.rows > 0
    warm = trained(spec, tmp_path / "kept")
    assert said(warm) == said(trained(spec, "off")) and warm["store"]["all"]["forwarded"] == 0


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OutOfMemoryError("gone"), "Ray has no memory for the actors"),
        (ActorDiedError(), "the processes of the actors ended"),
    ],
)
def test_actors_that_are_lost_again_and_again_are_named(error: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def lost(*_: Any) -> Any:
        nonlocal tries
        tries += 1
        raise error

    pool = RayPool(None, 2)
    monkeypatch.setattr(pool, "_rows", lost)
    monkeypatch.setattr(pool, "_fits", lambda need: None)
    monkeypatch.setattr(pool._backend, "up", lambda cpus: None)
    monkeypatch.setattr("kdmesh.backends.ray_data.meeting", lambda address: ())
    config = SimpleNamespace(plan=SimpleNamespace(hosts={"label": ["t"]}), modules={})
    source = SimpleNamespace(of=lambda name, plan: None)
    with pytest.raises(RunFailed, match=what) as told:
        [*pool(config, source, SimpleNamespace(cpus=1), [1, 2])]  # type: ignore[arg-type]
    assert told.value.where == "--actors" and "fewer --actors" in told.value.instead
    assert tries == (1 if isinstance(error, OutOfMemoryError) else 3)


def killed(work: Any, after: float) -> None:
    """Do something in a process that is killed so many seconds later."""
    if not (child := os.fork()):
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", range(3))
def test_killed_and_started_again_it_goes_on(number: int, tmp_path: Path) -> None:
    spec, store = of("views"), str(tmp_path / "kept")
    start = time.monotonic()
    whole = label(Asked(spec, ("t",), str(tmp_path / "whole"))).agents["t"]
    lasts = time.monotonic() - start
    killed(lambda: label(Asked(spec, ("t",), store)), random.Random(number).uniform(0.3, 0.9) * lasts)
    again = label(Asked(spec, ("t",), store)).agents["t"]
    assert again.there + again.done.forwarded == again.rows == whole.rows
    warm = trained(spec, store)
    assert said(warm) == said(trained(spec, "off")) and warm["store"]["all"]["forwarded"] == 0


@pytest.mark.slow
def test_the_command_over_ray_is_killed_and_goes_on(tmp_path: Path) -> None:
    """Its driver is: what its actors wrote is there, and nothing of it stays."""
    spec, store = of("views"), tmp_path / "kept"
    (tmp_path / "small.yaml").write_text(dump(spec.dump()), encoding="utf-8")
    name, value = "KDMESH_TEST_MARK", uuid.uuid4().hex
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    line = [sys.executable, "-m", "kdmesh", "label", "small.yaml", "--actors", "2", "--store", str(store), "--quiet"]
    driver = subprocess.Popen(line, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, name: value})
    deadline = time.monotonic() + PATIENCE
    while not [*store.rglob("*.safetensors")] and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    while processes(f"{name}={value}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(f"{name}={value}") == {} and [*Store.open(store).verify()] == []
    again = label(Asked(spec, ("t",), str(store))).agents["t"]
    assert again.there > 0 and again.there + again.done.forwarded == again.rows
    warm = trained(spec, store)
    assert said(warm) == said(trained(spec, "off")) and warm["store"]["all"]["forwarded"] == 0


def test_pieces_that_were_done_are_not_done_again(tmp_path: Path) -> None:
    """Broken off after some pieces, what these wrote is there."""
    spec, store = of("views"), str(tmp_path / "kept")

    def stop(far: Far) -> None:
        if far.done.rows >= far.rows // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label(Asked(spec, ("t",), store), stop)
    again = label(Asked(spec, ("t",), store)).agents["t"]
    assert again.rows // 2 <= again.there < again.rows and again.done.forwarded == again.rows - again.there


@pytest.mark.parametrize(
    ("change", "agents", "where", "what"),
    [
        ({}, "x", "--agents", "there is no agent 'x'"),
        ({}, "s", "--agents", "s trains in this mesh"),
        ({"teacher": {"view": {"augment": ["noise"]}}}, "t", "agents.t.view", "each epoch it sees new views"),
        ({"flow": {"refresh": "step", "mode": "train"}}, "t", "flows.1.mode", "it answers in train mode"),
    ],
)
def test_what_is_refused(change: Any, agents: str, where: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=what) as error:
        label(Asked(of("live", **change), (agents,), str(tmp_path / "kept")))
    assert error.value.where == where and error.value.instead and not (tmp_path / "kept").exists()


def test_private_streams_are_refused(tmp_path: Path) -> None:
    fields = of().dump()
    fields["streams"] = {"own": {"of": "train", "private": True}}
    for flow in fields["flows"]:
        flow["stream"] = "own"
    with pytest.raises(MeshError, match=r"private samples \(own\) leaves no trace") as error:
        label(Asked(parse(fields), ("t",), str(tmp_path)))
    assert error.value.where == "streams.own.private"
    with pytest.raises(MeshError, match="no frozen agent teaches whose answers are kept"):
        label(Asked(parse(fields), (), str(tmp_path)))


def test_stores_that_take_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeshError, match="the store is switched off"):
        label(Asked(of(), ("t",), "off"))
    with pytest.raises(MeshError, match="is a file, not a folder"):
        (tmp_path / "file").write_text("", encoding="utf-8")
        label(Asked(of(), ("t",), str(tmp_path / "file")))

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(MeshError, match="nothing can be written there: Read-only file system"):
        label(Asked(of(), ("t",), str(tmp_path)))


def test_a_machine_without_memory_for_the_actors_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"100000 actors with t take .* GB of memory") as error:
        label(Asked(of(), ("t",), str(tmp_path), actors=100_000))
    assert error.value.where == "--actors" and error.value.instead.startswith("--actors ")


def test_the_command(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(dump(of().dump()), encoding="utf-8")
    line = ["label", "small.yaml", "--store", "kept"]
    assert main([*line, "--agents", "t"]) == 0
    out, err = capsys.readouterr()
    assert "703" in out and "answers are missing, about" in err and "t: done, " in err
    assert max(map(len, (out + err).splitlines())) <= 80 or len(str(tmp_path)) > 50
    assert main([*line, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["agents"]["t"]["there"] == told["agents"]["t"]["rows"] and told["not_kept"] == {} and not err
    assert main([*line, "--agents", "t,x"]) == 2 and "--agents: there is no agent 'x'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line, "--agents", "t,"])
    assert main(["run", "small.yaml", "--store", "kept", "--quiet", "--backend", "inline"]) == 0
    assert "forwards, " in capsys.readouterr().out


def test_several_seeds(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher whose views each seed draws: a run of as many seeds then forwards nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(dump(of("fewer views").dump()), encoding="utf-8")
    line = ["label", "small.yaml", "--store", "kept", "--seed", "3", "--seeds", "2", "--quiet"]
    assert main(line) == 0
    assert [one for one in capsys.readouterr().out.splitlines() if one.startswith("seed")] == ["seed 3", "seed 4"]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {seed: one["agents"]["t"]["rows"] == one["agents"]["t"]["there"] for seed, one in told.items()} == {
        "3": True, "4": True,
    }  # fmt: skip
    run = ["run", "small.yaml", "--store", "kept", "--quiet", "--backend", "inline", "--seed", "3", "--seeds", "2"]
    assert main(run) == 0
    folders = sorted((tmp_path / "runs").rglob("seeds/*/summary.json"))
    stores = [json.loads(one.read_text(encoding="utf-8"))["store"]["all"] for one in folders]
    assert [one["forwarded"] for one in stores] == [0, 0] and all(one["found"] for one in stores)


@pytest.mark.parametrize("command", ["check", "plan"])
def test_whose_answers_are_not_kept_is_said_before_a_run(
    command: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(dump(of("live", teacher={"view": {"augment": ["noise"]}}).dump()), encoding="utf-8")
    assert main([command, str(path)]) == 0 and "store:" not in capsys.readouterr().out  # it is switched off
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "kept"))
    assert main([command, str(path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "store: what t says is not kept: each epoch it sees new views of all samples; to keep it: view:" in out
    path.write_text(dump(of().dump()), encoding="utf-8")
    assert main([command, str(path)]) == 0 and "store:" not in capsys.readouterr().out
