"""Seven broken packages and a good one, installed at once by real pip: each is named, and harms nobody."""

from __future__ import annotations

import json

import pytest

OFFERING = """
import kdmesh
from kdmesh.offers import ConsensusOffer

@kdmesh.hookimpl
def kdmesh_consensus():
    return [{offer}]
"""
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{dist}"
version = "1.2"
dependencies = ["kdmesh"]

[project.entry-points.kdmesh]
{module} = "{module}"
"""


def offering(offer: str) -> str:
    return OFFERING.format(offer=f"ConsensusOffer({offer})")


SOURCES = {
    "kdmesh-good": offering("'loudest', 'kdmesh_good:Loudest', summary='the most certain source'"),
    "kdmesh-no-import": "import nowhere_at_all\n",
    "kdmesh-misspelt": "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_consensuss():\n    return []\n",
    "kdmesh-argument": "import kdmesh\n\n@kdmesh.hookimpl\ndef kdmesh_run_started(run, walk):\n    pass\n",
    "kdmesh-bad-spec": offering("'sloppy', 'no import string'"),
    "kdmesh-too-new": offering("'modern', 'kdmesh_too_new:Modern', api=99"),
    "kdmesh-one": offering("'same', 'kdmesh_one:Same'"),
    "kdmesh-two": offering("'same', 'kdmesh_two:Same'"),
}
REASONS = {
    "kdmesh-no-import": ("broken", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
    "kdmesh-misspelt": ("broken", "unknown hook 'kdmesh_consensuss'"),
    "kdmesh-argument": ("broken", "{'walk'}"),
    "kdmesh-bad-spec": ("broken", "'sloppy' has the factory 'no import string'"),
    "kdmesh-too-new": ("broken", "needs plugin API 99"),
    "kdmesh-one": ("shadowed", "'same', and so does kdmesh-two 1.2"),
    "kdmesh-two": ("shadowed", "'same', and so does kdmesh-one 1.2"),
}
NAMED = {  # a rule that a mesh may name, and what is said then
    "sloppy": "kdmesh-bad-spec 1.2 is broken (the consensus rule 'sloppy' has the factory 'no import string'",
    "modern": "kdmesh-too-new 1.2 is broken (the consensus rule 'modern' needs plugin API 99",
    "same": "kdmesh-two 1.2 is shadowed (offers the consensus rule 'same', and so does kdmesh-one 1.2",
    "quietest": "kdmesh-no-import 1.2 did not load (ModuleNotFoundError",
}
LISTED_LIGHTLY = """
import sys
from kdmesh.cli import main
code = main(["plugins"])
assert not {"torch", "ray"} & set(sys.modules)
sys.exit(code)
"""
NAMING = """
from kdmesh.cli import main
codes = [main(["run", f"{name}.yaml", "--backend", "inline"]) for name in NAMES]
assert codes == [2] * len(codes), codes
"""


def test_seven_broken_packages_harm_nobody(environment, tmp_path):
    pytest.importorskip("pip")
    for dist, source in SOURCES.items():
        module = dist.replace("-", "_")
        (tmp_path / dist).mkdir()
        (tmp_path / dist / f"{module}.py").write_text(source)
        (tmp_path / dist / "pyproject.toml").write_text(PYPROJECT.format(dist=dist, module=module))

    def succeeds(command):
        done = environment.shell(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout, done.stderr

    succeeds("pip install " + " ".join(f"./{dist}" for dist in SOURCES))
    (tmp_path / "listed.py").write_text(LISTED_LIGHTLY)
    offers, _, problems = succeeds("python listed.py")[0].partition("\n\n")
    assert "loudest" in offers and "kdmesh-good" in offers
    lines = [line for line in problems.replace("\n  ", " ").splitlines() if " 1.2 " in line]  # they are folded
    assert len(lines) == len(REASONS)
    for dist, (status, reason) in REASONS.items():
        (line,) = (line for line in lines if f" {dist} 1.2 " in line)
        assert line.startswith(status) and reason in line

    out, err = succeeds("kdmesh run ensemble --backend inline --set train.epochs=1 --set data.train=128")
    assert "student" in out
    for dist, (status, reason) in REASONS.items():
        (line,) = (line for line in err.splitlines() if f"of {dist} 1.2 is {status}" in line)
        assert line.startswith("kdmesh: warning: plugin ") and reason in line

    for name in NAMED:
        mlp = {"model": {"mlp": {"hidden": [4]}}}
        ensemble = {"teachers": ["a", "b"], "student": "c", "consensus": name}
        mesh = {"data": {"dataset": "digits"}, "agents": dict.fromkeys("abc", mlp), "connect": [{"ensemble": ensemble}]}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(mesh))
    (tmp_path / "naming.py").write_text(f"NAMES = {list(NAMED)}\n{NAMING}")
    err = succeeds("python naming.py")[1]
    for name, reason in NAMED.items():
        assert reason in err, (name, err)
