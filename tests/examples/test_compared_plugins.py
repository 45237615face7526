"""The page that compares plugin systems has the counts of the files; the plugins that can be run pass their tests."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "comparison"


def script(name):
    spec = spec_from_file_location(name, FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_the_lines_of_the_files():
    page = (ROOT / "docs" / "plugins" / "comparison.md").read_text(encoding="utf-8")
    rows = script("count").rows()
    assert len(rows) == 5 and "\n".join(rows) in page


def test_lines_of_code_are_counted(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        '"""Two\nlines."""\n\n# one\nimport os  # counts\n\n\ndef f():\n    "a docstring"\n    return """\n    """\n'
    )
    assert script("count").code(path) == 4


@pytest.mark.parametrize(
    "system", [pytest.param("kdmesh", marks=pytest.mark.slow), "pytest", "llm", "optuna", "lightning"]
)
def test_each_passes_its_own_test(system):
    if find_spec(system) is None:
        pytest.skip(f"{system} is not installed")
    paths = os.pathsep.join([str(FOLDER / system), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "--rootdir", ".", "."]
    done = subprocess.run(
        command, cwd=FOLDER / system, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (0, "unknown hook 'kdmesh_traind'"),
        (1, "for hook 'kdmesh_trained'"),
        (2, "failed in kdmesh_trained: ZeroDivisionError"),
    ],
)
@pytest.mark.slow
def test_a_mistake_in_ours_is_said_and_the_run_goes_on(which, said):
    told = script("mistakes").tried("kdmesh", which)
    assert told.startswith("exit code 0") and said in told and "mistaken.py" in told
