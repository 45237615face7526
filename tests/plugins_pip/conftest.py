"""An environment of its own for real pip: packages are installed here, and all else comes from the running one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment that nothing is downloaded into: no index, no dependencies, builds as they are."""

    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """What a shell in it sees."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "KDMESH_", "PYTEST_"))
        }
        pip = {"NO_INDEX": "1", "NO_DEPS": "1", "NO_BUILD_ISOLATION": "0", "DISABLE_PIP_VERSION_CHECK": "1"}
        return {
            **kept,
            **{f"PIP_{name}": value for name, value in pip.items()},  # pip reads NO_BUILD_ISOLATION=0 as the flag
            "PIP_CONFIG_FILE": os.devnull,
            "PATH": os.pathsep.join([str(self.home / "bin"), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
            # Those on Ray `make test` has of plugins/kdmesh-template, which is what `plugins new` writes.
            "PYTEST_ADDOPTS": "-k 'not ray_gives'",
        }

    def shell(self, commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run commands until one fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=1200,
        )


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A fresh one. What it lacks is looked up in the running environment: pip itself, kdmesh, torch."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    rooms = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = [str(ROOT), *(f"import site; site.addsitedir({room!r})" for room in rooms)]  # with what is editable there
    (site / "running.pth").write_text("".join(f"{line}\n" for line in lines))
    for command, module in (("kdmesh", "kdmesh"), ("pip", "pip"), ("pytest", "pytest")):
        script = home / "bin" / command
        script.write_text(f'#!/bin/sh\nexec "{home}/bin/{Path(sys.executable).name}" -m {module} "$@"\n')
        script.chmod(0o755)
    return Environment(home)
