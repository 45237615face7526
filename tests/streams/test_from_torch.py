from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from kdmesh.errors import MeshError
from kdmesh.streams.from_torch import join, table_from
from kdmesh.streams.table import Table

X = torch.arange(24.0).reshape(6, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Noisy(Items):
    def __getitem__(self, index):
        x, y = self.items[index]
        return x + torch.rand(4), y


class Endless(IterableDataset):
    def __iter__(self):
        return iter([(X[0], 0)])


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        (X.numpy().astype(np.float64), Y.numpy()),
        TensorDataset(X, Y),
        Items(list(zip(X, Y, strict=True))),
        Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
        Subset(TensorDataset(X, Y), range(6)),
    ],
)
def test_every_form_gives_the_same_table(source):
    table = table_from(source)
    assert table.x.dtype == torch.float32
    assert torch.equal(table.x, X)
    assert torch.equal(table.y, Y)
    assert (table.classes, table.deterministic, table.shape) == (3, True, (4,))


def test_a_data_set_that_changes_is_marked():
    assert not table_from(Noisy(list(zip(X, Y, strict=True)))).deterministic


def test_a_data_set_that_reuses_its_buffer_is_read_right():
    buffer = torch.empty(4)

    class Reused(Items):
        def __getitem__(self, index):
            return buffer.copy_(X[index]), Y[index]

    table = table_from(Reused(range(6)))
    assert torch.equal(table.x, X)
    assert table.deterministic


def test_classes_may_be_more_than_are_seen_and_unlabelled_data_need_them():
    assert table_from((X, Y), classes=10).classes == 10
    assert table_from(table_from((X, Y)), classes=5).classes == 5
    table = table_from(TensorDataset(X), classes=3)
    assert table.y is None
    assert table.classes == 3


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (Endless(), "cannot be read by index"),
        (Items([]), "is empty"),
        (Items([(X[0], 0), (X[0, :2], 1)]), "item 1: x has shape"),
        (Items([("a word", 0)]), "not an array of numbers"),
        ((X, Y[:5]), "5 labels for 6 rows"),
        ((X, Y - 1), "row 0: label -1 is negative"),
        ((X, Y + 0.5), "row 0: label 0.5 is no whole number"),
        ((X, torch.nn.functional.one_hot(Y)[None]), r"labels of shape \[1, 6, 3\]"),
        ((X, Y * 10**9), "looks like an id"),
        ((X.where(X != 9, float("nan")), Y), "x, row 2: a value is not finite"),
        ((X[:, 0], Y), "where features were expected"),
        (TensorDataset(X), "data without labels"),
        (TensorDataset(X, Y, Y), "3 tensors"),
    ],
)
def test_data_that_cannot_be_used_are_refused(source, what):
    with pytest.raises(MeshError, match=what):
        table_from(source)


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(MeshError, match="row 2: label 2 is beyond the 2 classes"):
        table_from((X, Y), classes=2)


def test_join_keeps_its_parts_as_official_splits():
    train, test = table_from((X, Y)), table_from((X + 1, Y), classes=4)
    train.columns, test.columns = {"id": list("abcdef"), "only": list("abcdef")}, {"id": list("ghijkl")}
    table = join(train, test=test)
    assert torch.equal(table.x, torch.cat([X, X + 1]))
    assert {name: rows.tolist() for name, rows in table.official.items()} == {
        "train": list(range(6)),
        "test": list(range(6, 12)),
    }
    assert table.classes == 4
    assert table.columns == {"id": list("abcdefghijkl")}
    assert join(train) is train


@pytest.mark.parametrize(
    "other",
    [
        Table(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), 3),
        Table(torch.zeros(2, 4), None, 3),
        Table(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), 3, labels=["x"]),
        Table(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), 3, official={"test": torch.arange(1)}),
    ],
)
def test_join_refuses_parts_that_do_not_fit(other):
    with pytest.raises(MeshError) as error:
        join(table_from((X, Y)), validation=other)
    assert error.value.where == "data.validation"
