from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.spec.data import ShardSpec
from kdmesh.streams.shards import shard
from kdmesh.streams.table import Table

TABLE = Table(
    torch.zeros(300, 2),
    torch.arange(300) % 6,
    6,
    columns={"city": [f"c{(row * 7) % 5}" for row in range(300)]},
)
ROWS = torch.arange(20, 260)


def names(count: int) -> list[str]:
    return [f"a{i}" for i in range(count)]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["iid", "dirichlet", "class", "column"]),
    st.integers(1, 5),
    st.floats(0.2, 100),
    st.integers(1, 6),
    st.integers(0, 1000),
)
def test_shards_are_disjoint_nonempty_ascending_parts(by, agents, alpha, classes, seed):
    spec = ShardSpec(by=by, of=names(agents), alpha=alpha, classes=classes, column="city")
    parts = shard(ROWS, TABLE, spec, seed)
    assert list(parts) == names(agents)
    every = torch.cat(list(parts.values()))
    assert len(every.unique()) == len(every)
    assert torch.isin(every, ROWS).all()
    assert all(len(rows) and torch.equal(rows, rows.sort().values) for rows in parts.values())
    if by != "class":
        assert len(every) == len(ROWS)
    again = shard(ROWS, TABLE, spec, seed)
    assert all(torch.equal(parts[name], again[name]) for name in parts)


def test_iid_shards_are_even_and_seeded():
    parts = shard(ROWS, TABLE, ShardSpec(of=names(7)), seed=0)
    assert {len(rows) for rows in parts.values()} == {34, 35}
    assert not torch.equal(parts["a0"], shard(ROWS, TABLE, ShardSpec(of=names(7)), seed=1)["a0"])


def test_small_alpha_is_more_skewed_than_large():
    def skew(alpha: float) -> float:
        parts = shard(ROWS, TABLE, ShardSpec(by="dirichlet", of=names(4), alpha=alpha), seed=0)
        shares = [torch.bincount(TABLE.y[rows], minlength=6) / len(rows) for rows in parts.values()]
        return torch.stack(shares).std(0).mean().item()

    assert skew(0.2) > 5 * skew(1000.0)


def test_dirichlet_redraws_then_says_that_it_cannot():
    rows = torch.arange(8)
    with pytest.raises(MeshError, match="left an agent without samples") as error:
        shard(rows, TABLE, ShardSpec(by="dirichlet", of=names(8), alpha=0.01), seed=0, where="streams.own.shards")
    assert error.value.where == "streams.own.shards.alpha"


def test_each_agent_owns_its_classes_and_shares_them_evenly():
    parts = shard(ROWS, TABLE, ShardSpec(by="class", of=names(6), classes=2), seed=4)
    owned = [set(TABLE.y[rows].tolist()) for rows in parts.values()]
    assert all(len(classes) == 2 for classes in owned)
    assert owned[0] == owned[3]  # six classes, two each: the round starts again with the fourth agent
    assert owned[0].isdisjoint(owned[1])
    assert all(len(rows) == 40 for rows in parts.values())


def test_classes_without_owner_are_left_out():
    parts = shard(ROWS, TABLE, ShardSpec(by="class", of=["a"], classes=2), seed=0)
    assert len(TABLE.y[parts["a"]].unique()) == 2


def test_columns_are_dealt_in_sorted_order():
    parts = shard(ROWS, TABLE, ShardSpec(by="column", of=names(2), column="city"), seed=0)
    cities = {name: {TABLE.columns["city"][row] for row in rows.tolist()} for name, rows in parts.items()}
    assert cities == {"a0": {"c0", "c2", "c4"}, "a1": {"c1", "c3"}}


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"of": []}, "agents, each named once"),
        ({"of": ["a", "a"]}, "agents, each named once"),
        ({"of": names(500)}, "240 samples for 500 agents"),
        ({"of": ["a"], "by": "class", "classes": 7}, "7 classes per agent where 6"),
        ({"of": ["a"], "by": "column", "column": "citi"}, "did you mean 'city'"),
        ({"of": ["a"], "by": "column"}, "no column is named"),
        ({"of": names(6), "by": "column", "column": "city"}, "5 values for 6 agents"),
    ],
)
def test_impossible_shards_are_refused(spec, what):
    with pytest.raises(MeshError, match=what):
        shard(ROWS, TABLE, ShardSpec(**spec), seed=0)


def test_by_class_needs_labels():
    with pytest.raises(MeshError, match="needs labels"):
        shard(ROWS, Table(torch.zeros(300, 2), None, 6), ShardSpec(of=["a"], by="dirichlet"), seed=0)
