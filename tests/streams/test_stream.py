from __future__ import annotations

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec, StreamSpec
from kdmesh.streams.stream import resolve
from kdmesh.streams.table import Table

TABLE = Table(torch.zeros(400, 2), torch.arange(400) % 4, 4)
DATA = DataSpec(dataset="digits", test=100, validation=50, transfer=50)


def made(streams: dict[str, dict], data: DataSpec = DATA, table: Table = TABLE):
    return resolve(table, data, {name: StreamSpec(**spec) for name, spec in streams.items()})


def test_splits_are_streams_and_transfer_has_no_labels():
    streams = made({})
    assert {name: (len(s.rows), s.labelled) for name, s in streams.items()} == {
        "train": (200, True),
        "validation": (50, True),
        "test": (100, True),
        "transfer": (50, False),
    }
    assert torch.equal(streams["train"].rows_for("anyone"), streams["train"].rows)


def test_streams_of_streams_in_any_order_inherit():
    streams = made(
        {
            "small": {"of": "few", "size": 10},
            "few": {"of": "train", "only": [1, 2, 3], "without": [2], "private": True, "labels": False},
            "pub": {"of": "transfer"},
        }
    )
    assert set(TABLE.y[streams["few"].rows].tolist()) == {1, 3}
    assert set(streams["small"].rows.tolist()) < set(streams["few"].rows.tolist())
    assert len(streams["small"].rows) == 10
    assert streams["small"].private
    assert not streams["small"].labelled
    assert not streams["pub"].labelled  # labels that are hidden stay hidden
    assert list(streams)[-3:] == ["small", "few", "pub"]


def test_shards_belong_to_their_agents_and_are_narrowed_with_the_rows():
    streams = made(
        {
            "own": {"shards": {"of": ["a", "b"]}, "private": True},
            "ones": {"of": "own", "only": [1]},
            "same": {"of": "own"},
        }
    )
    own, ones = streams["own"], streams["ones"]
    assert len(own.rows_for("a")) == len(own.rows_for("b")) == 100
    assert torch.equal(streams["same"].rows_for("a"), own.rows_for("a"))
    assert torch.equal(ones.rows_for("a"), own.rows_for("a")[TABLE.y[own.rows_for("a")] == 1])
    with pytest.raises(MeshError, match="c has no shard of stream 'own'") as error:
        own.rows_for("c")
    assert error.value.where == "streams.own.shards.of"


def test_what_is_drawn_depends_on_the_data_seed_and_the_name():
    spec = {"one": {"size": 50}, "two": {"size": 50}}
    streams = made(spec)
    assert torch.equal(streams["one"].rows, made(spec)["one"].rows)
    moved = made(spec, DATA.model_copy(update={"seed": 9}))
    assert all(not torch.equal(streams[name].rows, moved[name].rows) for name in ("one", "two", "train", "test"))
    assert not torch.equal(streams["one"].rows, streams["two"].rows)
    assert torch.bincount(TABLE.y[streams["one"].rows]).tolist() in (
        [13, 13, 12, 12],
        [12, 13, 12, 13],
        [13, 12, 13, 12],
    )


def test_a_replay_names_what_it_repeats():
    streams = made({"own": {"shards": {"of": ["a", "b"]}}, "again": {"of": "own", "replay": True}})
    assert (streams["again"].replay, streams["again"].base) == (True, "own")
    assert torch.equal(streams["again"].rows_for("b"), streams["own"].rows_for("b"))
    assert (streams["own"].replay, streams["own"].base) == (False, None)


@pytest.mark.parametrize("whole", ["train", "half"])
def test_the_rest_is_what_others_have_not_taken(whole):
    half = {"half": {"size": 0.5}}
    streams = made({"rest": {"of": whole, "rest_of": ["a", "b"]}, "most": {"of": whole, "rest_of": "a"},
                    "a": {"of": whole, "size": 30}, "b": {"of": whole, "only": [1, 2]}, **half})  # fmt: skip
    a, b, rest, every = (streams[name].rows for name in ("a", "b", "rest", whole))
    assert not torch.isin(rest, torch.cat([a, b])).any()
    assert torch.equal(torch.cat([a, b, rest]).unique(), every)
    assert torch.equal(torch.cat([a, streams["most"].rows]).sort().values, every)
    assert torch.equal(rest, rest.sort().values)


def test_the_rest_inherits_from_the_whole_alone_and_may_be_narrowed():
    streams = made(
        {
            "own": {"of": "train", "size": 50, "private": True, "labels": False, "shards": {"of": ["a", "b"]}},
            "public": {"rest_of": "own"},
            "ones": {"rest_of": "own", "only": [1], "size": 20},
            "seen": {"of": "own", "size": 20},
            "unseen": {"of": "own", "rest_of": "seen"},
            "pool": {"of": "transfer", "rest_of": "asked"},
            "asked": {"of": "transfer", "size": 10},
        }
    )
    public, unseen, own = streams["public"], streams["unseen"], streams["own"]
    assert (public.private, public.labelled, public.shards, len(public.rows)) == (False, True, None, 150)
    assert set(streams["ones"].rows.tolist()) < set(public.rows.tolist())
    assert set(TABLE.y[streams["ones"].rows].tolist()) == {1}
    assert unseen.private and not unseen.labelled and not streams["pool"].labelled
    for agent in "ab":
        both = torch.cat([unseen.rows_for(agent), streams["seen"].rows_for(agent)])
        assert torch.equal(both.sort().values, own.rows_for(agent))


def test_streams_by_the_values_of_columns():
    """As where several data sets stand in one file, with a column that says which."""
    of = ["photo" if row % 3 else "sketch" for row in range(400)]
    table = Table(TABLE.x, TABLE.y, 4, columns={"source": of, "year": [str(2000 + row % 2) for row in range(400)]})
    streams = made(
        {
            "public": {"where": {"source": "sketch"}},
            "own": {"rest_of": "public", "private": True, "shards": {"of": ["a", "b"]}},
            "late": {"where": {"source": ["sketch", "photo"], "year": 2001}},
        },
        table=table,
    )
    assert {of[row] for row in streams["public"].rows.tolist()} == {"sketch"}
    assert {of[row] for row in streams["own"].rows.tolist()} == {"photo"}
    assert set(streams["late"].rows.tolist()) == {row for row in streams["train"].rows.tolist() if row % 2}
    for spec, where, what in (
        ({"sauce": "photo"}, "streams.a.where", "did you mean 'source'"),
        ({"source": ["foto"]}, "streams.a.where.source", "did you mean 'photo'"),
        ({"source": "sketch", "year": []}, "streams.a", "no sample of train is left"),
    ):
        with pytest.raises(MeshError, match=what) as error:
            made({"a": {"where": spec}}, table=table)
        assert error.value.where == where


@pytest.mark.parametrize(
    ("streams", "where", "what"),
    [
        ({"a": {"of": "tran"}}, "streams.a.of", "did you mean 'train'"),
        ({"a": {"of": "b"}, "b": {"of": "c"}, "c": {"of": "b"}}, "streams.c.of", "b -> c -> b"),
        ({"a": {"of": "a"}}, "streams.a.of", "a -> a"),
        ({"train": {}}, "streams.train", "name of a split"),
        ({"a": {"only": [4]}}, "streams.a.only", r"classes 0 \.\. 3"),
        ({"a": {"without": [0, 1, 2, 3]}}, "streams.a", "no sample of train is left"),
        ({"a": {"only": []}}, "streams.a", "no sample of train is left"),
        ({"a": {"size": 201}}, "streams.a.size", "asks for 201"),
        ({"a": {"size": 0.001}}, "streams.a.size", "is none"),
        (
            {"a": {"shards": {"of": ["x"]}}, "b": {"of": "a", "shards": {"of": ["y"]}}},
            "streams.b.shards",
            "divided already",
        ),
        (
            {"a": {"shards": {"of": ["x", "y"], "by": "class", "classes": 2}}, "b": {"of": "a", "only": [0]}},
            "streams.b",
            "no sample is left",
        ),
        ({"a": {"of": "train"}, "b": {"rest_of": "a"}}, "streams.b.rest_of", "nothing of train is left: all its 200"),
        (
            {"a": {"size": 100}, "b": {"rest_of": "a"}, "c": {"rest_of": ["a", "b"]}},
            "streams.c.rest_of",
            "all its 200 samples are in a and b",
        ),
        ({"a": {"of": "transfer", "size": 9}, "b": {"rest_of": "a"}}, "streams.b.rest_of", "9 of the 9 samples of a"),
        ({"a": {"rest_of": "nobody"}}, "streams.a.rest_of", "unknown stream 'nobody'"),
        ({"a": {"rest_of": "b"}, "b": {"rest_of": "a"}}, "streams.b.rest_of", "a -> b -> a"),
        ({"a": {"replay": True}, "b": {"rest_of": "a"}}, "streams.b.rest_of", "a is a replay"),
        ({"a": {"size": 5}, "b": {"rest_of": "a", "replay": True}}, "streams.b.replay", "repeats whole batches"),
        ({"a": {"replay": True, "size": 5}}, "streams.a.replay", "repeats whole batches"),
        ({"a": {"replay": True}, "b": {"of": "a"}}, "streams.b.of", "a is a replay"),
    ],
)
def test_wrong_streams_are_refused_where_they_stand(streams, where, what):
    with pytest.raises(MeshError, match=what) as error:
        made(streams)
    assert error.value.where == where


def test_a_missing_split_says_how_to_make_it():
    with pytest.raises(MeshError, match=r"data\.transfer: 0\.2"):
        made({"a": {"of": "transfer"}}, DataSpec(dataset="digits"))


def test_without_labels_nothing_is_labelled_and_classes_choose_nothing():
    bare = Table(torch.zeros(100, 2), None, 4)
    data = DataSpec(dataset="digits")
    assert not any(stream.labelled for stream in made({}, data, bare).values())
    with pytest.raises(MeshError, match="no labels to choose by"):
        made({"a": {"only": [1]}}, data, bare)
