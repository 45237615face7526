"""The fixture ``run_mesh``: runs a small mesh, in this process or on Ray, and says what became of it.

Every contract has it. In tests of your own, name it in ``conftest.py``, as pytest's own ``pytester`` is named:

    pytest_plugins = ["kdmesh.testing.run_mesh"]

    def test_both_backends_give_the_same_bits(run_mesh):
        runs = [run_mesh(MESH, backend=backend) for backend in ("inline", "ray")]
        assert runs[0].weights == runs[1].weights
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from kdmesh.backends import Session
from kdmesh.backends.processes import new_mark, sweep
from kdmesh.backends.starting import SETTINGS
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost
from kdmesh.offers import Offer
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.override import apply
from kdmesh.spec.read import parse, read_mesh
from kdmesh.spec.yaml12 import load
from kdmesh.store.store import OFF
from kdmesh.streams.table import Table
from kdmesh.testing.small import table

CPUS = 12
"""Logical ones, of the shared Ray: hosts of small meshes may outnumber the cores."""
RUNS = 100
"""After so many runs the shared Ray is begun anew. Once, after over 200 tests, hosts gave no result, why is unknown."""
PATIENCE = 240.0
"""Seconds without any result after which a host of a small mesh hangs."""


@dataclass(frozen=True)
class MeshRun:
    """A run that finished.

    ``backend``: where, `inline` or `ray`. ``folder``: the run's folder; None where none was asked for. ``summaries``:
    what ``summary.json`` of each seed holds, by seed. ``results``: what ``results.json`` holds.
    """

    backend: str
    folder: Path | None
    summaries: dict[int, dict[str, Any]] = field(repr=False)
    results: dict[str, Any] = field(repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """That of the first seed."""
        return next(iter(self.summaries.values()))

    @property
    def weights(self) -> dict[str, str]:
        """The sha256 of each agent's weights, by agent, of the first seed: equal bits have equal ones."""
        return {name: about["weights_sha256"] for name, about in self.summary["agents"].items()}

    def metric(self, agent: str, name: str, split: str = "test") -> float | None:
        """An agent's figure on a split, by the metric's name."""
        value: float | None = self.summary["agents"][agent]["metrics"][split][name]
        return value


class RunMesh:
    """Runs meshes for one test. Folders of runs are beneath ``folder``, the test's ``tmp_path``.

    ``config``: of the session of pytest, whose Ray is used; in this process it runs without.
    """

    def __init__(self, config: pytest.Config | None = None, folder: Path | None = None) -> None:
        self.config, self.folder = config, folder

    def __call__(
        self,
        mesh: str | Path | dict[str, Any] | MeshSpec,
        *overrides: str,
        backend: str = "inline",
        data: Table | None = None,
        offers: Sequence[Offer] = (),
        out: bool | Path = True,
        **more: Any,
    ) -> MeshRun:
        """Run a mesh and wait for its end.

        ``mesh``: the text of a mesh's file, its path, its fields, or a ``MeshSpec``. ``overrides``: as the command
        line's ``--set``, ``"train.epochs=3"``; not of a ``MeshSpec``. ``backend``: `inline`, or `ray`, where one Ray is
        shared by the whole session of pytest, and its actors are kept from run to run. ``data``: a table in place of a
        file's data set; a mesh without ``data`` gets 96 made-up points of three classes. ``offers``: what the mesh
        names and no package has installed; hosts are sent these. ``out``: the parent of the run's folder; True: `runs`
        beneath ``tmp_path``, False: none is written. ``more``: fields of a request, such as ``modules``, ``seeds``,
        ``controls``, ``resume``, ``listeners``, ``strict_signals`` and ``store``, which here is off by default.

        Raises what the run raises: MeshError for a mesh that is refused, RunFailed for one that fails, also where a
        single seed or control does.
        """
        spec, own = self._spec(mesh, overrides, data)
        place = out if isinstance(out, Path) else self.folder / "runs" if out and self.folder is not None else None
        place = None if more.get("resume") is not None else place
        more.setdefault("store", OFF)  # a test that finds answers of an earlier one forwards nobody
        request = Request(spec, backend, out=place, table=own, report=False, **more)
        with lent(offers):
            experiment = Experiment(request)
            if backend == "ray" and self.config is not None:
                experiment.session = shared_ray(self.config).session()
            outcome = experiment.run()
        root = outcome.folder.root if outcome.folder is not None else None
        return MeshRun(backend, root, outcome.summaries, outcome.table)

    def _spec(self, mesh: Any, overrides: Sequence[str], data: Table | None) -> tuple[MeshSpec, Table | None]:
        """The mesh, and the table that it is given."""
        if isinstance(mesh, MeshSpec):
            if overrides:
                raise ValueError("a MeshSpec takes no overrides: give the mesh as text or as fields")
            given = mesh.data is not None and mesh.data.dataset.name == "python:given"
            return mesh, table() if given and data is None else data
        if isinstance(mesh, Path):
            return read_mesh(mesh, overrides), data
        fields = dict(load(mesh, file="") if isinstance(mesh, str) else mesh)
        if "data" not in fields or data is not None:
            about = fields.get("data", {})
            fields["data"] = {**(about if isinstance(about, dict) else {}), "dataset": "python:given"}
        spec = parse(apply(fields, overrides))
        given = spec.data is not None and spec.data.dataset.name == "python:given"
        return spec, table() if given and data is None else data


@contextmanager
def lent(offers: Sequence[Offer]) -> Iterator[None]:
    """Have these offers among those of this process, in place of others of their names, for a while."""
    known = registry()
    before = known.lent
    known.lend((*before, *offers))
    try:
        yield
    finally:
        known.lend(before)


class Kept(Session):
    """A session on Ray that does not end with its run: the next one has its actors.

    ``doubted``: whether a run ended because a host was lost. The fault may be Ray's: the next run gets a new one.
    """

    doubted = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.doubted = self.doubted or isinstance(error, HostLost)
        if error is not None and not isinstance(error, Exception):  # of a run that failed, the next one pings them
            self.close()

    def close(self) -> None:
        """End its actors."""
        super().__exit__(None, None, None)


class SharedRay:
    """The Ray of a session of pytest: begun by the first run that asks for it, and ended with the session.

    A Ray that runs in this process already is joined, and left as it is.
    """

    def __init__(self) -> None:
        self._session = Kept("ray", progress_timeout=PATIENCE)
        self._folder = ""
        self._runs = 0

    def session(self) -> Session:
        """A session of kdmesh on it."""
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        assert self._session.backend.name == "ray"  # imports ray, with an embedded one's settings
        from kdmesh.backends.ray import running, start_ray

        if self._folder and (self._session.doubted or self._runs >= RUNS):
            self.close()
        if not running():
            self._session.close()  # of one that ended meanwhile
            self._session.doubted, self._runs = False, 0
            self._folder = tempfile.mkdtemp(prefix="rays-")  # short: sockets are in it
            (Path(self._folder) / "ray").mkdir()  # where it notes its newest cluster
            start_ray(cpus=CPUS, folder=self._folder)
        self._runs += 1
        return self._session

    def close(self) -> None:
        """End its actors, and Ray too where it was begun here."""
        self._session.close()
        if not self._folder:
            return
        from kdmesh.backends.ray import stop_ray

        stop_ray()
        while sweep(new_mark(), self._folder, (os.getpid(),)):  # what Ray has told to end, and has not
            time.sleep(0.05)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = ""


KEY = pytest.StashKey[SharedRay]()


def shared_ray(config: pytest.Config) -> SharedRay:
    """The one Ray of a session of pytest."""
    if KEY not in config.stash:
        config.stash[KEY] = SharedRay()
        config.add_cleanup(config.stash[KEY].close)
    return config.stash[KEY]


@pytest.fixture
def run_mesh(request: pytest.FixtureRequest, tmp_path: Path) -> RunMesh:
    """Runs meshes: see :class:`RunMesh`."""
    return RunMesh(request.config, tmp_path)
