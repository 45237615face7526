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
