"""What was queued for a host that has been opened anew, or behind a call that failed, is refused: on a real Ray."""

from __future__ import annotations

import pytest
from commands import kill

from kdmesh.backends.sequence import Missing, Refused
from kdmesh.engine.check import examine
from kdmesh.errors import HostLost
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.hosts.state import HostConfig
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

pytestmark = pytest.mark.ray

PEERS = {
    "data": {"dataset": "digits", "train": 128},
    "agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in "ab"},
    "connect": [{"mutual": {"peers": ["a", "b"]}}],
    "train": {"epochs": 1},
    "placement": "spread",
}


@pytest.fixture
def hosts(ray_session):
    plan = make_plan(parse(PEERS), registry())
    ray_session.backend.open(HostConfig(plan, {}, examine(plan).shapes), Source())
    return ray_session.backend


def sha(hosts):
    return hosts.get([hosts.call("host0", "describe")])[0]["a"]["weights_sha256"]


def test_a_call_of_before_a_rollback_is_refused(hosts):
    before = sha(hosts)
    state = hosts.call("host0", "export_state", "a")
    old, actor = hosts._sequencer.take("host0"), hosts._hosts["host0"]
    kill(hosts._hosts["host1"])
    with pytest.raises(HostLost, match="host1 was lost"):
        hosts.get([hosts.call("host1", "describe")])
    assert hosts.lost() == ["host1"]
    hosts.rebuild(hosts._opened[0].plan)
    assert hosts._hosts["host0"] is actor  # it lives, and is another incarnation now
    incarnation = hosts._sequencer.incarnation
    with pytest.raises(Refused, match=f"of incarnation {incarnation - 1}: this is incarnation {incarnation}") as caught:
        hosts.get([actor.call.remote(old, "take_snapshot", "a", state)])
    assert not isinstance(caught.value, Missing)
    assert sha(hosts) == before


def test_what_is_queued_behind_a_failed_input_is_refused_with_the_first_cause(hosts):
    broken = hosts.call("host0", "publish", "nobody", "train", ())
    queued = [hosts.call("host1", "receive", broken), hosts.call("host1", "evaluate", "b", "test")]
    with pytest.raises(KeyError, match="nobody") as caught:
        hosts.get(queued[1:])
    assert "in publish" in str(caught.value.__cause__)  # the traceback of the host that raised it
    with pytest.raises(KeyError, match="nobody"):
        hosts.get([hosts.call("host0", "describe")])


def test_behind_the_input_of_a_lost_host_the_loss_is_the_first_cause(hosts):
    kill(hosts._hosts["host0"])
    gone = hosts.call("host0", "publish", "a", "train", ("",))
    hosts.call("host1", "receive", gone)
    with pytest.raises(HostLost) as caught:
        hosts.get([hosts.call("host1", "evaluate", "b", "test")])
    assert caught.value.host == "host0"
    hosts.rebuild(hosts._opened[0].plan)
    assert hosts.get([hosts.call("host1", "evaluate", "b", "test")])[0]["accuracy"] >= 0


def test_an_actor_that_died_since_the_run_before_is_not_used_again(hosts):
    config, source = hosts._opened
    gone, stays = hosts._hosts["host0"], hosts._hosts["host1"]
    kill(gone)
    hosts.open(config, source)
    assert stays in hosts._hosts.values() and gone not in hosts._hosts.values()
    assert hosts.get([hosts.call("host0", "evaluate", "a", "test")])[0]["accuracy"] >= 0
