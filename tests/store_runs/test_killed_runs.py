"""Runs that write the store, killed at random times and taken up again: the same weights, and right reads."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import mesh, said

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec import MeshSpec
from kdmesh.spec.read import parse
from kdmesh.store import Store

STEPS = 40


def spec(number: int) -> MeshSpec:
    """A frozen teacher that answers live in counted views, or once; as many steps as a kill needs to fall between."""
    live = {"flow": {"refresh": "step"}, "teacher": {"view": {"augment": ["noise"], "draws": 4}}}
    fields = {**mesh(**(live if number % 2 == 0 else {"flow": {"refresh": "once"}}))._fields, "data": "digits"}
    return parse({**fields, "train": {"steps": STEPS, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}})


def made(number: int, store: Path | str, out: Path | None = None, resume: Path | None = None) -> dict[str, Any]:
    summary, _, _ = run_once(
        Request(spec(number), "inline", store=str(store), out=out, resume=resume, checkpoint_seconds=0)
    )
    return summary


def killed(work: Any, after: float) -> None:
    """Do something in a process of its own, and kill that so many seconds later."""
    if not (child := os.fork()):
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def check(seeds: range, tmp_path: Path) -> None:
    """Kill, go on until it is whole; one store for all, which is sound and right to the bit after each."""
    whole = {}
    for kind in (0, 1):
        start = time.monotonic()
        whole[kind] = said(made(kind, tmp_path / f"timed-{kind}", tmp_path / f"whole-{kind}")), time.monotonic() - start
    store = tmp_path / "kept"
    for number in seeds:
        expected, lasts = whole[number % 2]
        out = tmp_path / f"run-{number}"
        killed(lambda n=number, o=out: made(n, store, o), random.Random(number).uniform(0.2, 0.9) * lasts)
        folders = [*out.glob("mesh/*")]
        try:
            summary = made(number, store, resume=folders[0]) if folders else made(number, store, out)
        except MeshError:  # before it had written what it was asked, or after it was done
            summary = made(number, store, tmp_path / f"again-{number}")
        assert said(summary) == expected
        assert not [*Store.open(store).verify()], number
    for number in (0, 1):
        warm = made(number, store)
        assert said(warm) == whole[number][0] == said(made(number, "off"))
        assert warm["store"]["all"]["forwarded"] == 0


def test_three_kills(tmp_path: Path) -> None:
    check(range(3), tmp_path)


@pytest.mark.slow
def test_forty_kills(tmp_path: Path) -> None:
    check(range(3, 43), tmp_path)
