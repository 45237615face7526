"""Errors and code that cross between the driver and its actors, on the shared Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import ModuleType

import pytest
from commands import kill

import kdmesh
from kdmesh.backends.ray import RayBackend
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

PEERS = {
    "data": {"dataset": "digits", "train": 128},
    "streams": {"own": {"shards": {"of": ["a"]}}},
    "agents": {"a": {"model": {"mlp": {"hidden": [4]}}}, "b": {"model": {"mlp": {"hidden": [4]}}}},
    "connect": [{"mutual": {"peers": ["a", "b"]}}],
    "train": {"epochs": 1},
    "placement": "spread",
}
ANEW = """
import sys

import kdmesh.backends.ray

for name in [name for name in sys.modules if name in ("kdmesh.backends.ray", "kdmesh.backends.worker")]:
    del sys.modules[name]  # as pytest does after a run within a run; the package still has them as attributes
import kdmesh.backends.ray as again

assert sys.modules["kdmesh.backends.worker"] is again.worker
"""
MADE = """
from torch import nn

WIDTH = 6

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x):
        return self.head(activation(self.hidden(x.flatten(1))))

def activation(x):
    return x.clamp(min=0)
"""


@pytest.fixture
def hosts(ray_session):
    plan = make_plan(parse(PEERS), registry())
    ray_session.backend.open(HostConfig(plan, {}, examine(plan).shapes), Source())
    return ray_session.backend


def test_an_error_a_user_can_mend_arrives_whole(hosts):
    with pytest.raises(MeshError) as caught:
        hosts.get([hosts.call("host1", "evaluate", "b", "own")])
    error = caught.value
    assert type(error) is MeshError and error.exit_code == 2
    assert (error.where, error.what) == ("streams.own.shards.of", "b has no shard of stream 'own'")


def test_another_error_keeps_its_type_and_the_hosts_traceback(hosts):
    with pytest.raises(KeyError, match="nobody") as caught:
        hosts.get([hosts.call("host0", "evaluate", "nobody", "test")])
    assert "in evaluate" in str(caught.value.__cause__)


def test_an_error_reaches_whoever_waits_for_what_it_should_have_made(hosts):
    broken = hosts.call("host0", "publish", "nobody", "train", ())
    with pytest.raises(KeyError, match="nobody"):
        hosts.get([hosts.call("host1", "receive", broken)])


def test_actors_are_kept_for_the_next_run(hosts, ray_session):
    before = set(hosts._names)
    plan = make_plan(parse({**PEERS, "placement": "together"}), registry())
    hosts.open(HostConfig(plan, {}, {}), Source())
    assert set(hosts._names) <= before


def test_a_broken_loss_is_told_from_the_actor(ray_session):
    agents = {**PEERS["agents"], "b": {**PEERS["agents"]["b"], "train": {"optimizer": {"sgd": {"lr": 1e30}}}}}
    with pytest.raises(RunFailed) as caught:
        run_once(Request(parse({**PEERS, "agents": agents})), session=ray_session)
    assert caught.value.exit_code == 1 and caught.value.where in ("agents.a", "agents.b")
    assert "at step " in caught.value.what and " in [" in caught.value.what


def test_a_module_made_at_run_time_is_sent_along(monkeypatch):
    made = ModuleType("kdmesh_test_made_at_run_time")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(MADE, made.__dict__)
    mesh = kdmesh.Mesh(data="digits", train={"epochs": 1})
    mesh.agent("net", made.Net())
    shas = {backend: mesh.run(backend=backend)["net"].weights_sha256 for backend in ("inline", "ray")}
    assert shas["inline"] == shas["ray"]


def test_a_lost_host_is_named():
    plan = make_plan(parse({**PEERS, "placement": {"left": ["a"], "right": ["b"]}}), registry())
    backend = RayBackend()
    try:
        backend.open(HostConfig(plan, {}, {}), Source())
        backend.get([backend.call("left", "describe")])
        kill(backend._hosts["right"])
        with pytest.raises(RunFailed, match="right was lost") as caught:
            backend.get([backend.call("right", "describe")])
        assert caught.value.where == "placement.right"
    finally:
        backend.close()
    import ray

    assert backend._hosts == {} and ray.is_initialized()


def test_hosts_that_would_wait_for_ever_are_refused():
    spec = parse({**PEERS, "train": {"threads": 1000}})
    with pytest.raises(MeshError, match=r"the hosts take 2000 CPUs \(host0 1000, host1 1000\), and this Ray has 12"):
        run_once(Request(spec, "ray"))


def test_a_host_that_gives_no_result_counts_as_lost(hosts, monkeypatch):
    import ray

    monkeypatch.setattr(hosts, "patience", 1.0)
    actor = hosts._hosts["host1"]
    pid = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(HostLost, match="host1 was lost: it gave no result for 1 s") as caught:
        hosts.get([hosts.call("host1", "describe")])
    assert (caught.value.host, caught.value.where) == ("host1", "placement.host1")
    monkeypatch.undo()  # the other one has all the time it needs
    assert hosts.lost() == ["host1"]


def test_the_control_store_keeps_nothing_of_the_calls(hosts):
    """It would hold an event of each for a dashboard, 100,000 of them. A task of Ray's own shows when it is told."""
    import ray
    from ray._private.state import state

    hosts.get([hosts.call("host0", "describe") for _ in range(20)])

    def kdmesh_test_of_events():
        pass

    ray.get(ray.remote(kdmesh_test_of_events).remote())
    accessor, known = state._connect_and_get_accessor(), b""
    while b"kdmesh_test_of_events" not in known:
        known = b"".join(accessor.get_task_events())
        time.sleep(0.1)
    assert b"Worker.take" not in known and b"Worker.open" not in known


def test_hosts_of_the_embedded_ray_have_the_drivers_priority(hosts):
    """With Ray's own default, nice 15, a busy machine gives them a thirtieth of what it gives a run in one process."""
    import ray

    actors = hosts._hosts.values()
    assert {ray.get(actor.__ray_call__.remote(lambda _: os.nice(0))) for actor in actors} == {os.nice(0)}


EMBEDDED = """
import os
from kdmesh.backends import Session

with Session("ray") as session:
    session.backend
    from kdmesh.backends.ray import start_ray

    start_ray()
    import ray
    from ray._raylet import GcsClient
    from ray.exceptions import AuthenticationError

    address, token = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]
    print("token", len(token), "usage", os.environ["RAY_USAGE_STATS_ENABLED"])
    print("with it", GcsClient(address=address).internal_kv_keys(b"nothing", namespace=None))
    env = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64}
    code = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
    import subprocess, sys

    done = subprocess.run([sys.executable, "-c", code, address], env=env, capture_output=True, text=True)
    print("with another", "AuthenticationError" in done.stderr)
"""


def test_the_embedded_ray_asks_for_a_token_and_reports_no_usage(tmp_path, rays_folder):
    """In a process that has not imported ray before."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"HOME": str(tmp_path)}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_TMPDIR": rays_folder}
    done = subprocess.run([sys.executable, "-c", EMBEDDED], env=env, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if line.startswith(("token", "with"))]
    assert said == ["token 64 usage 0", "with it []", "with another True"], done.stdout + done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []  # no token is left in the user's folder


def test_it_can_be_imported_again_where_its_modules_were_taken_away() -> None:
    done = subprocess.run([sys.executable, "-c", ANEW], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
