"""Calls are warmed up, timed within a budget, and summed up by ranks."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.hosts import latency
from kdmesh.hosts.latency import LEAST, LIMIT, MOST, Order, figures, measure, timed


class Clock:
    """A time that goes on only while something is called."""

    def __init__(self, *takes: float) -> None:
        self.now, self.takes, self.seen = 0.0, takes, list[Any]()

    def __call__(self) -> float:
        return self.now

    def forward(self, one: Any) -> None:
        self.now += self.takes[min(len(self.seen), len(self.takes) - 1)]
        self.seen.append(one)


def nothing() -> None:
    """A device that has always done its work."""


@pytest.mark.parametrize(
    ("takes", "warm_up", "budget", "warm", "count"),
    [
        ((5.0, 0.125), 1.0, 4.0, 1, 32),  # the first call is never timed, however long it took
        ((0.125,), 1.0, 4.0, 8, 32),
        ((1.0,), 0.0, 2.0, 1, LEAST),
        ((0.0,), 0.0, 1.0, 1, MOST),
        ((LIMIT / 4,), 0.0, 1.0, 1, 4),
        ((LIMIT * 2,), 0.0, 1.0, 1, 1),
    ],
)
def test_calls_are_timed_after_a_warm_up_within_a_budget(takes, warm_up, budget, warm, count):
    clock = Clock(*takes)
    times = timed(clock.forward, ["a", "b", "c"], nothing, warm_up, budget, clock)
    assert times == [takes[-1]] * count and len(clock.seen) == warm + count
    assert clock.seen[:4] == ["a", "b", "c", "a"][: len(clock.seen)]


def test_a_call_ends_when_its_device_has_done_it():
    clock = Clock(0.0)

    def wait() -> None:
        clock.now += 0.5

    assert set(timed(clock.forward, ["a"], wait, 0.0, 1.0, clock)) == {0.5}


def test_percentiles_are_by_nearest_rank():
    times = [number / 1000 for number in range(1, 101)]
    found = figures(times[::-1], 64)
    assert found == {"calls": 100, "p50_ms": 50.0, "p95_ms": 95.0, "samples_per_s": pytest.approx(6400 / sum(times))}
    assert figures([0.25], 1) == {"calls": 1, "p50_ms": 250.0, "p95_ms": 250.0, "samples_per_s": 4.0}


@pytest.fixture
def folder(runs) -> str:
    return str(runs["small"] / "agents" / "s")


def order(folder: str, **more: Any) -> Order:
    return Order(folder, "cpu", 1, False, [], warm_up=0.0, budget=0.0, **more)


def test_batches_repeat_samples_where_these_are_few(folder, monkeypatch):
    shapes = set()
    monkeypatch.setattr(latency, "figures", lambda times, size: {"p50_ms": len(times)})
    forward = torch.nn.Module.__call__

    def seen(module, *args):
        shapes.add(tuple(args[0].shape))
        return forward(module, *args)

    monkeypatch.setattr(torch.nn.Module, "__call__", seen)
    found = measure(order(folder), torch.randn(5, 8))
    assert {shape for shape in shapes if shape[1:] == (8,)} == {(1, 8), (64, 8)}
    assert found["samples"] == 5 and found["threads"] == 1
    assert found["1"] == found["64"] == {"p50_ms": LEAST}


def test_a_device_that_is_not_here_is_refused(folder):
    if not torch.cuda.is_available():
        with pytest.raises(MeshError, match="cuda:7, is not on this machine"):
            measure(Order(folder, "cuda:7", 1, False, []), torch.randn(1, 8))


@pytest.mark.parametrize("fails", [MeshError("no such folder", instead="one"), ValueError("odd\nmore")])
def test_what_fails_is_one_line_of_json(folder, monkeypatch, capsys, fails):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(order(folder).line())))
    monkeypatch.setattr(latency, "_until_alone", nothing)

    def fail(*_: Any) -> None:
        print("noise of a model")
        raise fails

    monkeypatch.setattr(latency, "measure", fail)
    assert latency.main() == (2 if isinstance(fails, MeshError) else 1)
    out = capsys.readouterr().out
    expected = "no such folder\n  instead: one" if isinstance(fails, MeshError) else "ValueError: odd"
    assert json.loads(out) == {"error": expected}


def test_a_process_that_nobody_waits_for_ends(folder):
    command = [sys.executable, "-m", "kdmesh.hosts.latency"]
    done = subprocess.run(command, input=order(folder).line(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_processor_has_a_name(monkeypatch, tmp_path):
    assert latency.cpu_name()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "vendor: x\nmodel name\t: A Fast One @ 2 GHz\n")
    assert latency.cpu_name() == "A Fast One @ 2 GHz"

    def gone(*_: Any, **__: Any) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", gone)
    assert latency.cpu_name() in (platform.processor(), platform.machine())
