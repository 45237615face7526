"""What is said about data before anyone trains on them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, Subset

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.remarks import leaks, remarks
from kdmesh.streams.stream import resolve
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.streams.unread import joined


def streams(table, **splits):
    return resolve(table, DataSpec(dataset="given", **splits), {})


def said(table, **splits):
    return remarks(table, streams(table, **splits))


def x(n, *shape, seed=0):
    return torch.randn(n, *(shape or (3,)), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (Table(x(20), torch.zeros(20, dtype=torch.int64), 1), "every sample is of one class"),
        (Table(x(20), torch.arange(20) % 2 * 10, 11), "9 of the 11 classes have no sample: the labels are 0, 10"),
        (Table(x(200), torch.arange(200), 200, labels=[f"id{i}" for i in range(200)]), "is the label a column of ids"),
        (Table(x(20), torch.arange(20) % 2, 2, labels=["x", " X"]), "differ in blanks or capitals only: 'x', ' X'"),
        (
            Table(x(20) * 5e4, torch.arange(20) % 2, 2, features=["a", "income", "b"]),
            "not scaled: a .*, income .*prepare: .{columns: numbers, scale: standard}",
        ),
        (Table(x(20, 1, 4, 4).abs() * 255, torch.arange(20) % 2, 2), "not scaled: the samples .*columns: pixels"),
        (Table(x(20), torch.arange(20) % 2, 2, left_out={"city": "text"}), r"left out: city \(text\)"),
        (Table(x(20), torch.tensor([[0, 1, 0], [0, 0, 1]] * 10), 0), "the same in every training sample: 0$"),
        (Table(x(20), torch.tensor([[1, 1], [1, 0]] * 10), 0, labels=["red", "new"]), "training sample: red$"),
    ],
)
def test_odd_data_are_said(table, what):
    found = said(table)
    assert len(found) >= 1
    with pytest.raises(AssertionError, match=what):
        raise AssertionError(" | ".join(found))


def test_ordinary_data_are_not_talked_about():
    assert said(Table(x(60), torch.arange(60) % 3, 3)) == []
    assert leaks(Table(x(60), torch.arange(60) % 3, 3), streams(Table(x(60), torch.arange(60) % 3, 3))) == []


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    ("truth", "own", "kind", "named"),
    [
        (torch.arange(3000) % 3, lambda y: 7.5 - y, "classes", "b"),
        (
            torch.stack([torch.arange(3000) % 2, torch.arange(3000) % 5 // 3], 1),
            lambda y: y[:, 1],
            "indicators",
            "b (v)",
        ),
        (x(3000, 1, seed=1), lambda y: y[:, 0], "values", "b"),
        (torch.arange(3000) // 2, lambda y: y, "classes", "b"),
    ],
)
def test_a_feature_that_is_the_label_is_said(truth, own, kind, named, ordered, lazy):
    truth = truth[truth.reshape(len(truth), -1)[:, -1].argsort(stable=True)] if ordered else truth
    numbers = torch.stack([x(3000, 1)[:, 0], own(truth).float(), torch.ones(3000)], 1)

    def table(samples):
        labels = ["u", "v"] if kind == "indicators" else []
        given = joined([samples[:1700], samples[1700:]]) if lazy else samples
        many = 1500 if kind == "classes" else 0
        return Table(given, truth, many, features=["a", "b", "c"], labels=labels)

    def said_of(samples):
        return [one for one in said(table(samples)) if "features that are the label" in one]

    assert said_of(numbers) == [f"features that are the label, which is all that models will learn: {named}"]
    learned = streams(table(numbers))["train"].rows
    numbers[learned[len(learned) // 2 + 1], 1] += 0.25  # one row of all, which a first look may pass over
    assert said_of(numbers) == []


def test_a_class_that_only_the_test_has_is_named():
    y = torch.cat([torch.arange(40) % 2, torch.full((10,), 2)])
    table = Table(x(50), y, 3, official={"test": torch.arange(40, 50)}, labels=["a", "b", "rare"])
    assert said(table) == ["classes without a training sample: rare"]


def test_test_data_that_repeat_training_data_are_found_whatever_their_ids():
    one = (x(80), torch.arange(80) % 2)
    table = kdmesh.data(one, validation=(one[0][3:30], one[1][3:30]))
    assert leaks(table, streams(table, test=0)) == [
        "every validation sample has the values of one that teaches: validation figures are of what was learned; "
        "is its file that of train?"
    ]
    some = kdmesh.data(one, test=(torch.cat([one[0][5:12].flip(0), x(13, seed=9)]), torch.arange(20) % 2))
    assert leaks(some, streams(some, validation=0)) == ["7 of the 20 test samples have the values of one that teaches"]
    alike = Table(torch.ones(30, 3), torch.arange(30) % 2, 2)
    assert leaks(alike, streams(alike))[-1].startswith("all 30 samples are alike")


def test_texts_that_repeat_are_found_too():
    texts = Texts([Sample(f"a text {i % 25}") for i in range(50)])
    table = Table(texts, torch.arange(50) % 2, 2, official={"test": torch.arange(25, 50)})
    assert leaks(table, streams(table, validation=0))[0].startswith("every test sample has the values of one that")


TRAIN, TEST = x(80), x(30, seed=1)
MIXED = torch.cat([TRAIN, TEST])


@pytest.mark.parametrize(
    ("train", "test", "count"),
    [
        (TRAIN, TRAIN, 80),  # one file twice
        (TRAIN, TRAIN[5:40].flip(0), 35),  # a part of it
        (MIXED, TEST, 30),  # test samples among those that are learned
        (MIXED, MIXED[70:], 40),
        (TRAIN, torch.cat([TRAIN[:20], TEST[:15]]), 20),
    ],
)
@pytest.mark.parametrize("splits", [{}, {"transfer": 0.4}])
def test_figures_of_a_test_file_whose_samples_teach_are_marked_as_of_what_was_learned(train, test, count, splits):
    table = kdmesh.data((train, torch.arange(len(train)) % 2), test=(test, torch.arange(len(test)) % 2))
    (text,) = [text for text in leaks(table, streams(table, **splits)) if " test sample" in text]
    assert text.startswith("every test sample" if count == len(test) else f"{count} of the {len(test)} test samples")
    assert "test figures are of what was learned" in text


def test_a_run_that_tests_on_its_training_data_ends_well_and_says_so():
    one = (x(48), torch.arange(48) % 2)
    mesh = kdmesh.Mesh(data=kdmesh.data(one, test=one), train={"steps": 2, "batch_size": 48}, splits={"validation": 0})
    mesh.agent("a", {"mlp": {"hidden": [4]}})
    mesh.flow("labels", "a", objective="ce")
    (note,) = [text for text in mesh.run(backend="inline").summary["notes"] if "test sample" in text]
    assert note.endswith("test figures are of what was learned; is its file that of train?")


def test_a_leak_stands_in_the_summary():
    one = (x(80), torch.arange(80) % 2)
    data = kdmesh.data(one, test=(torch.cat([one[0][:7], x(13, seed=9)]), torch.arange(20) % 2))
    mesh = kdmesh.Mesh(data=data, train={"steps": 2, "batch_size": 8})
    mesh.agent("a", {"mlp": {"hidden": [4]}})
    mesh.flow("labels", "a", objective="ce")
    assert mesh.run(backend="inline").summary["notes"][0].startswith("7 of the 20 test samples have the values")


class Items(Dataset):
    def __init__(self, classes, y, noise=0.0):
        self.classes, self.y, self.noise, self.x = classes, y, noise, x(len(y))

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i] + self.noise * torch.rand(3), self.y[i]


def test_data_sets_are_joined_by_the_names_of_their_classes():
    train, test = Items(["cat", "dog", "emu"], [0, 1, 2] * 4), Items(["dog", "cat"], [0, 1, 0])
    table = kdmesh.data(train, test=test)
    assert table.labels == ["cat", "dog", "emu"] and table.y[table.official["test"]].tolist() == [1, 0, 1]
    assert "joined by name" in table.notes[0]
    assert kdmesh.data(train, test=Subset(test, [1])).y[-1] == 0
    with pytest.raises(MeshError, match="its class 'cow' is none of train's") as error:
        kdmesh.data(train, test=Items(["cow", "dog"], [0, 1]))
    assert error.value.where == "data.test"
    with pytest.raises(MeshError, match="its labels are not those of train"):
        kdmesh.data(train, test=(x(2), torch.tensor([0, 1])))


def test_random_transforms_are_said_with_their_consequence():
    table = kdmesh.data(Items(["a", "b"], [0, 1] * 10, noise=0.1))
    assert not table.deterministic
    assert "every item was read once" in table.notes[0] and table.notes[0] in said(table)
    assert kdmesh.data(Items(["a", "b"], [0, 1] * 10)).notes == []


def test_flips_of_some_items_only_are_found():
    class Flipped(Items):
        def __getitem__(self, i):
            value, y = super().__getitem__(i)
            return (value.flip(0) if torch.rand(()) < 0.5 else value), y

    torch.manual_seed(0)
    assert not kdmesh.data(Flipped(["a", "b"], [0, 1] * 40)).deterministic
