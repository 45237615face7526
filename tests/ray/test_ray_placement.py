"""Where hosts go on Ray: what `auto` measured, what a host asks for, and one reservation for all on several nodes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from commands import PATIENCE

from kdmesh.contracts.events import Placed, RunStarted
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.resources import Resources
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.placement import settle
from kdmesh.placement.timing import Timing
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

PEERS = {
    "data": {"dataset": "digits", "train": 128},
    "agents": {"a": {"model": {"mlp": {"hidden": [4]}}}, "b": {"model": {"mlp": {"hidden": [6]}}}},
    "connect": [{"mutual": {"peers": ["a", "b"]}}],
    "train": {"epochs": 1},
}
HEAD = "node:__internal_head__"  # a resource that every cluster has one of


def shas(backend, seen, **fields):
    listeners = (lambda event: seen.append(event) if isinstance(event, Placed | RunStarted) else None,)
    summary, _, _ = run_once(Request(parse({**PEERS, **fields}), backend, listeners=listeners))
    return {name: facts["weights_sha256"] for name, facts in summary["agents"].items()}


@pytest.mark.parametrize(("seconds", "hosts"), [(1e-4, 1), (10.0, 2)])
def test_auto_gives_the_weights_of_inline_wherever_it_places(monkeypatch, seconds, hosts):
    pace = Timing(seconds, seconds, seconds, seconds)
    monkeypatch.setattr(settle, "_known", {})
    monkeypatch.setattr(settle, "machine", lambda: Resources(2))
    monkeypatch.setattr(settle, "measure", lambda plan, *_: dict.fromkeys(plan.spec.agents, (pace, pace)))
    seen = []
    found = shas("ray", seen)
    placed, started = seen
    assert len(placed.hosts) == hosts and placed.hosts == started.hosts
    assert found == shas("inline", [])


def test_what_auto_measures_changes_no_bit():
    seen = []
    assert shas("ray", seen) == shas("inline", [])
    assert settle.machine().cpus == 1 or "chosen: together" in seen[0].lines[-1]


def opened(session, placement):
    plan = make_plan(parse({**PEERS, "placement": placement}), registry())
    session.backend.open(HostConfig(plan, {}, examine(plan).shapes), Source())
    return session.backend


def test_what_a_host_asks_for_is_given_to_its_actor(ray_session):
    import ray

    asked = {"agents": ["a"], "cpus": 1.5, "resources": {HEAD: 0.25}}
    backend = opened(ray_session, {"left": asked, "right": ["b"]})
    given = {
        host: ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_assigned_resources()))
        for host, actor in backend._hosts.items()
    }
    assert given["left"] == {"CPU": 1.5, HEAD: 0.25} and given["right"] == {"CPU": 1.0}


def test_a_resource_that_no_node_has_is_refused(ray_session):
    with pytest.raises(MeshError, match=r"the hosts take 2 of 'tpu' \(left 2, right 0\), and this Ray has 0"):
        opened(ray_session, {"left": {"agents": ["a"], "resources": {"tpu": 2}}, "right": ["b"]})
    with pytest.raises(MeshError, match=r"the hosts take 2 GPUs \(left 0, right 2\), and this Ray has 0"):
        opened(ray_session, {"left": ["a"], "right": {"agents": ["b"], "gpus": 2}})


NODES = """
import sys
import ray
from ray.cluster_utils import Cluster
from kdmesh.hosts.state import HostConfig
from kdmesh.hosts.source import Source
from kdmesh.backends import make_backend
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

mesh = eval(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
backend = make_backend("ray", cluster.address)
try:
    resources = backend.resources()
    print("resources", resources.cpus, resources.node_cpus)
    plan = make_plan(parse({**mesh, "placement": "spread"}), registry())
    backend.open(HostConfig(plan, {}, examine(plan).shapes), Source())
    where = [actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
             for actor in backend._hosts.values()]
    print("nodes", len(set(ray.get(where))))
    print("groups", [group["strategy"] for group in ray.util.placement_group_table().values()])
    backend.rebuild(plan)
    print("again", len(set(backend._names)), len(backend._groups))
    for threads, placement in ((2, "together"), (2, "spread")):
        plan = make_plan(parse({**mesh, "placement": placement, "train": {"threads": threads}}), registry())
        try:
            backend.open(HostConfig(plan, {}, {}), Source())
        except MeshError as error:
            print("refused", error.what)
finally:
    backend.close()
    cluster.shutdown()
"""


def test_hosts_on_several_nodes_are_reserved_in_one_go(rays_folder):
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    env["RAY_TMPDIR"] = rays_folder
    done = subprocess.run(
        [sys.executable, "-c", NODES, repr(PEERS)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    said = [
        line
        for line in done.stdout.splitlines()
        if line.split()[0] in ("resources", "nodes", "groups", "again", "refused")
    ]
    assert said == [
        "resources 2 1",
        "nodes 2",
        "groups ['PACK']",
        "again 2 1",
        "refused host0 takes 2 CPUs, and the largest node has 1",
        "refused the hosts take 4 CPUs (host0 2, host1 2), and this Ray has 2",
    ], done.stderr[-2000:]
