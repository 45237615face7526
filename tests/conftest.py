"""What all tests share: seeded hypothesis on CI, one torch thread, and one Ray for all tests that need a real one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from kdmesh.backends.starting import SETTINGS

pytest_plugins = ["kitchen", "made_runs"]

settings.register_profile("kdmesh", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("kdmesh")

for name, value in SETTINGS.items():  # also for the clusters that tests start
    os.environ.setdefault(name, value)
# Their observers watch every run where they are installed, which costs time and tells of a library that is missing.
os.environ.setdefault("KDMESH_DISABLE_PLUGINS", "kdmesh-codecarbon,kdmesh-mlflow,kdmesh-tensorboard,kdmesh-wandb")
os.environ.setdefault("KDMESH_STORE", "off")  # tests of the store have one of their own
HOSTS = 6  # the most that a test on the shared Ray opens at a time


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    """Of several processes (`--dist loadgroup`) one has a file's tests; and one has all that need the shared Ray.

    What is long begins first, for no process to wait at the end.
    """
    long = set()
    for item in items:
        if "on_ray" in item.fixturenames:  # of the contracts, which know no mark of ours
            item.add_marker(pytest.mark.ray)
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if group == "ray" or item.get_closest_marker("long"):
            long.add(group)
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] not in long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    """pytest-xdist 3.8 drops the groups in silence beside pytest 9.2: each process would start a Ray of its own."""
    if node.config.option.dist == "loadgroup" and any("@" not in one for one in ids):
        pytest.exit("pytest-xdist keeps no groups together beside this pytest: see constraints.txt", 4)


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_wait_for_disks():
    """Nothing is synced in this process: no test cuts the power. Processes of commands and of chaos do sync."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@contextmanager
def short_folder():
    """For the temporary files of a Ray of the tests' own: its path is short, since sockets are in it."""
    from kdmesh.backends.processes import new_mark, sweep

    folder = tempfile.mkdtemp(prefix="rays-")
    (Path(folder) / "ray").mkdir()  # where it notes its newest cluster
    try:
        yield folder
    finally:
        while sweep(new_mark(), folder, (os.getpid(),)):  # what Ray has told to end, and has not
            time.sleep(0.05)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def rays_folder():
    """A short folder, for RAY_TMPDIR."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def ray_session(request):
    """A session on a Ray that outlives it: its actors are kept from test to test, since each takes seconds to start."""
    from kdmesh.testing.run_mesh import shared_ray

    return shared_ray(request.config).session()


@pytest.fixture(autouse=True)
def shared_ray(request):
    """Start the shared Ray before a test marked `ray`, so that what it runs joins that one."""
    if request.node.get_closest_marker("ray"):
        request.getfixturevalue("ray_session")
