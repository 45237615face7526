from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.splits import split
from kdmesh.streams.table import Table


def table(n: int, classes: int = 4, **more) -> Table:
    y = torch.arange(n) % classes
    return Table(torch.zeros(n, 2), y, classes, **more)


def spec(**sizes) -> DataSpec:
    return DataSpec(dataset="digits", **sizes)


def test_default_sizes_and_order_of_taking():
    parts = split(table(1000), spec())
    assert {name: len(rows) for name, rows in parts.items()} == {"test": 200, "validation": 80, "train": 720}
    parts = split(table(1000), spec(test=100, validation=0.2, transfer=0.5, train=0.5))
    assert [(name, len(rows)) for name, rows in parts.items()] == [
        ("test", 100),
        ("validation", 180),
        ("transfer", 450),
        ("train", 135),
    ]


sizes = st.one_of(st.floats(0.0, 0.4), st.integers(0, 12))


@settings(deadline=None, max_examples=60)
@given(st.integers(40, 90), st.integers(1, 7), sizes, sizes, sizes, st.booleans(), st.integers(0, 5))
def test_splits_are_disjoint_ascending_and_of_the_asked_size(n, classes, test, validation, transfer, stratify, seed):
    asked = {"test": test, "validation": validation, "transfer": transfer}
    try:
        parts = split(table(n, classes), spec(**asked, stratify=stratify, seed=seed))
    except MeshError as error:
        assert error.where in {f"data.{name}" for name in (*asked, "train")}
        return
    every = torch.cat(list(parts.values()))
    assert every.sort().values.tolist() == list(range(n))
    for rows in parts.values():
        assert rows.dtype == torch.int64
        assert torch.equal(rows, rows.sort().values)
    pool = n - len(parts.get("test", ()))
    for name, size in asked.items():
        whole = n if name == "test" else pool
        assert len(parts.get(name, ())) == (round(size * whole) if isinstance(size, float) else size)


def test_stratified_splits_keep_the_shares_by_largest_remainder():
    y = torch.tensor([0] * 70 + [1] * 25 + [2] * 5)
    parts = split(Table(torch.zeros(100, 1), y, 3), spec(test=10, validation=0, seed=3))
    assert torch.bincount(y[parts["test"]], minlength=3).tolist() == [7, 3, 0]  # quotas 7, 2.5, 0.5: ties to the first
    assert torch.bincount(y[parts["train"]], minlength=3).tolist() == [63, 22, 5]


def test_the_seed_of_the_data_wins_and_each_split_has_its_own_order():
    one = split(table(100), spec(seed=5))
    assert all(torch.equal(one[name], rows) for name, rows in split(table(100), spec(seed=5)).items())
    assert not torch.equal(one["test"], split(table(100), spec(seed=6))["test"])
    wider = split(table(100), spec(seed=5, transfer=0.3))
    assert torch.equal(one["test"], wider["test"])
    assert torch.equal(one["validation"], wider["validation"])


def test_an_official_test_split_is_kept_or_drawn_from_and_never_trained_on():
    data = table(100, official={"test": torch.arange(60, 100)})
    assert torch.equal(split(data, spec())["test"], torch.arange(60, 100))
    parts = split(data, spec(test=10))
    assert len(parts["test"]) == 10
    assert parts["test"].min() >= 60
    assert max(parts["train"].max(), parts["validation"].max()) < 60
    assert len(parts["validation"]) == 6  # a tenth of the pool of 60


def test_official_train_and_validation_are_respected():
    official = {"train": torch.arange(50), "validation": torch.arange(50, 70), "test": torch.arange(70, 90)}
    parts = split(table(100, official=official), spec())
    assert {name: rows.tolist() for name, rows in parts.items()} == {k: v.tolist() for k, v in official.items()}
    parts = split(table(100, official=official), spec(validation=5, transfer=0.2))
    assert set(parts["validation"].tolist()) < set(range(50, 70))
    assert len(parts["transfer"]) == 10
    assert len(parts["train"]) == 40
    assert "validation" not in split(table(100, official=official), spec(validation=0))


@pytest.mark.parametrize(
    ("sizes", "where"),
    [
        ({"test": 0.001}, "data.test"),
        ({"test": 1000}, "data.test"),
        ({"validation": 1.5}, "data.validation"),
        ({"validation": 0.6, "transfer": 0.6}, "data.transfer"),
        ({"validation": 0.5, "transfer": 0.5}, "data.train"),
        ({"train": 81}, "data.train"),
        ({"train": 0.001}, "data.train"),
    ],
)
def test_sizes_that_cannot_be_met_are_refused_where_they_stand(sizes, where):
    with pytest.raises(MeshError) as error:
        split(table(100), spec(**sizes))
    assert error.value.where == where


def test_official_splits_must_be_disjoint_rows_of_the_table():
    for test in (torch.arange(5, 15), torch.tensor([200])):
        with pytest.raises(MeshError, match="official splits"):
            split(table(100, official={"train": torch.arange(10), "test": test}), spec())
