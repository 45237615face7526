"""What `check` passes does not fail in `run`, tried on random changes of the bundled meshes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from changes import change, smaller
from many import outcome

MANY = Path(__file__).parent / "many.py"
MESH = {
    "data": "digits",
    "agents": {"t": {"model": {"mlp": {"hidden": [8]}}}, "s": {"model": "mlp"}},
    "connect": [{"ensemble": {"teachers": ["t"], "student": "s", "labels": {"start": 0, "end": 1, "epochs": 30}}}],
    "train": {"epochs": 30, "optimizer": {"adamw": {"lr": 0.01}}},
}


def tried(*arguments):
    done = subprocess.run([sys.executable, str(MANY), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_sample_of_changes_is_refused_or_runs(tmp_path):
    # here, where torch is imported: a process of its own would cost more than the changes
    found = []
    for seed in range(1000, 1005):
        (tmp_path / str(seed)).mkdir()
        with warnings.catch_warnings(action="default"):  # as in a run; torch warns of some settings
            found.append(outcome(seed, tmp_path / str(seed)))
    assert [one for one in found if one["outcome"] not in ("refused", "ran", "training")] == []


@pytest.mark.slow
def test_two_hundred_changes_are_refused_or_run():
    counts = tried("200")
    print(counts)
    assert min(counts["refused"], counts["ran"]) > 40  # neither is all that happens
    assert "failed" not in counts


def test_changes_are_many_seeded_and_leave_the_file_alone():
    before = json.dumps(MESH)
    changes = [change(MESH, seed) for seed in range(300)]
    assert repr(changes) == repr([change(MESH, seed) for seed in range(300)])  # repr: NaN is unlike itself
    assert json.dumps(MESH) == before and all(repr(data) != repr(MESH) for data, _ in changes)
    assert len({told.partition(":")[0] for _, told in changes}) > 15  # places


def test_smaller_budgets_leave_ramps_alone():
    small = smaller(MESH)
    assert small["train"]["epochs"] == 2
    assert small["connect"] == MESH["connect"]
