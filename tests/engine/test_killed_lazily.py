"""A run on data that are not in memory is killed, and resumed: the weights of a run on data in memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lazy_sets import LATER, dataset, later, mesh

import kdmesh
from kdmesh.cli import main

DIES = """
import os, signal, sys
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main

left, inner = [3], InlineBackend.call


def call(self, host, method, *args, **options):
    left[0] -= method == "run"
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, host, method, *args, **options)


InlineBackend.call = call
sys.exit(main(sys.argv[1:]))
"""
RUN = ["--backend", "inline", "--checkpoint-seconds", "0", "--quiet", "--no-report"]


def weights(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {name: (agent["weights_sha256"], agent["metrics"]) for name, agent in summary["agents"].items()}


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[] if form == "arrays" else pytest.mark.slow) for form in LATER]
)
def test_killed_and_resumed_it_has_the_bits_of_data_in_memory(form, tmp_path, monkeypatch):
    data = dataset(form, tmp_path)
    for name, own in (("memory", data), ("later", later(form, data))):
        (tmp_path / f"{name}.json").write_text(json.dumps(mesh(form, own)), encoding="utf-8")
    monkeypatch.setenv(
        "PYTHONPATH", f"{Path(kdmesh.__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    assert main(["run", str(tmp_path / "memory.json"), *RUN, "--out", str(tmp_path / "whole")]) == 0
    run = ["run", str(tmp_path / "later.json"), *RUN, "--out", str(tmp_path / "broken")]
    killed = subprocess.run([sys.executable, "-c", DIES, *run], capture_output=True, text=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert not (folder / "summary.json").exists() and [*folder.glob("checkpoints/*/*/manifest.json")]
    assert main(["resume", str(folder), "--quiet", "--no-report"]) == 0
    assert weights(folder) == weights(*(tmp_path / "whole").glob("*/*"))
