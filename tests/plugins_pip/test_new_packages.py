"""A package of each kind, as `kdmesh plugins new` writes it, passes its own tests as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdmesh.cli.plugins_new import KINDS, package

ROOT = Path(__file__).parents[2]


def installed(home: Path, kind: str) -> Path:
    """Write a package of a kind, and what pip would write beside it."""
    for path, text in package(f"kdmesh-new-{kind}", kind).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text, encoding="utf-8")
    info = home / f"kdmesh_new_{kind}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kdmesh-new-{kind}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[kdmesh]\nnew_{kind} = kdmesh_new_{kind}\n")
    return home


def run(folder: Path, kinds: tuple[str, ...], *options: str) -> str:
    """Run the tests of packages of these kinds in a pytest of their own; what it said."""
    homes = [installed(folder / kind, kind) for kind in kinds]
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -q\n")
    paths = os.pathsep.join(map(str, [ROOT, *homes]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KDMESH_", "PYTEST_", "RAY_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(home / "tests") for home in homes)],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, "KDMESH_STRICT_PLUGINS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_a_package_of_every_kind_passes_its_own_tests(tmp_path):
    said = run(tmp_path, KINDS, "-rs")
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) > 10 * len(KINDS) and "ray = False" not in said, said
