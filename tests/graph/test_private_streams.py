"""Private samples under another name: what structure alone can tell."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError

SHARDS = {"by": "iid", "of": ["a", "b"]}
OWN = {"of": "train", "private": True, "shards": SHARDS}


def labels(to, stream):
    return {"from": "labels", "to": to, "objective": "ce", "stream": stream}


def kl(source, target, stream):
    return {"from": source, "to": target, "objective": "kl", "stream": stream}


@pytest.fixture(params=["together", "spread"])
def made(plan, request):
    """A plan of a, b and c: success must not depend on the placement."""

    def make(streams, *flows, **more):
        mesh = {"agents": {"a": {}, "b": {}, "c": {}}, "flows": list(flows), "streams": streams, **more}
        return plan({"placement": request.param, **mesh})

    return make


TAUGHT = [labels(["a", "b"], "own"), kl("a", "c", "transfer")]


@pytest.mark.parametrize(
    ("streams", "flow"),
    [
        ({"own": OWN}, kl("a", "c", "train")),
        ({"own": OWN}, labels("a", "train")),
        ({"own": OWN, "few": {"of": "train", "size": 20}}, labels("c", "few")),
        ({"own": OWN, "all": {"of": "train"}}, labels("c", "all")),
        ({"own": OWN, "part": {"of": "own", "size": 9}}, kl("a", "b", "train")),
        ({"own": {**OWN, "shards": {"by": "class", "of": ["a", "b"]}}}, labels("c", "train")),
        ({"own": {"of": "base", "private": True, "shards": SHARDS}, "base": {"of": "train", "size": 50}},
         labels("c", "base")),
    ],
)  # fmt: skip
def test_private_samples_are_refused_by_their_split_s_name(made, streams, flow):
    with pytest.raises(
        MeshError, match=r"that are private to other agents: they belong to the private stream"
    ) as error:
        made(streams, labels(["a", "b"], "own"), flow, kl("a", "c", "transfer"))
    assert error.value.where == "flows.1" and error.value.instead


def test_the_rest_of_a_private_stream_is_private_as_its_whole_is(made):
    """What is left of `train` beside private samples is nobody's; what is left of a private stream is its owner's."""
    streams = {"own": {**OWN, "size": 50}, "rest": {"rest_of": "own"}}
    assert made(streams, labels(["a", "b"], "own"), labels("c", "rest"), kl("a", "c", "rest"))
    streams = {"own": OWN, "some": {"of": "own", "size": 9}, "left": {"of": "own", "rest_of": "some"}}
    with pytest.raises(MeshError, match="'left' is private, but a -> c would carry"):
        made(streams, labels(["a", "b"], "left"), kl("a", "c", "left"))


def test_what_is_drawn_by_itself_is_refused_as_well(made):
    with pytest.raises(MeshError, match="private to other agents") as error:
        made({"own": OWN}, labels("b", "own"), kl("a", "c", "transfer"), data={"dataset": "digits", "transfer": 0.2})
    assert error.value.where == "agents.a"  # its labels come from train unless it is said


def test_what_everyone_is_measured_on_is_not_private(made):
    with pytest.raises(MeshError, match="every agent is measured on") as error:
        made({"own": {**OWN, "of": "validation"}}, *TAUGHT, data={"dataset": "digits", "transfer": 0.2})
    assert error.value.where == "streams.own.of"


def test_samples_that_are_not_divided_are_held_by_one_host(plan):
    streams, flows = {"ward": {"of": "train", "private": True}}, [labels(["a", "b"], "ward"), kl("a", "c", "transfer")]
    mesh = {"agents": {"a": {}, "b": {}, "c": {}}, "flows": flows, "streams": streams}
    mesh["data"] = {"dataset": "digits", "transfer": 0.2}
    assert plan({**mesh, "placement": "spread"}).hosts == {"host0": ["a", "b"], "host1": ["c"]}
    assert plan({**mesh, "placement": "together"}).users == {"ward": ["a", "b"]}
    with pytest.raises(MeshError, match="private and not divided, and a, b, who all see its samples") as error:
        plan({**mesh, "placement": {"left": ["a"], "right": ["b", "c"]}})
    assert (error.value.where, error.value.instead) == (
        "streams.ward",
        "shards: {of: [a, b]}, or place them on one host",
    )


def test_who_sees_private_samples_may_see_them_by_any_name(made):
    assert made({"ward": {"private": True}}, labels("a", "train"), kl("a", "b", "ward"), labels("b", "train"),
                kl("a", "c", "transfer"), data={"dataset": "digits", "transfer": 0.2})  # fmt: skip
