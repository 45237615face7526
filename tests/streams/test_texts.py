from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec, ShardSpec, StreamSpec
from kdmesh.streams.from_torch import join
from kdmesh.streams.private import NOBODY, own_part
from kdmesh.streams.shards import shard
from kdmesh.streams.stream import Stream, resolve
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts, concatenate

SAMPLES = [Sample(f"text {row}", at=f"a.csv, line {row + 2}") for row in range(40)]


def table(labelled: bool = True) -> Table:
    y = torch.arange(40) % 4 if labelled else None
    return Table(Texts(SAMPLES), y, 4 if labelled else 0, columns={"role": [f"r{row % 5}" for row in range(40)]})


def words(texts) -> list[str]:
    return [sample.text for sample in texts]


def test_texts_are_indexed_as_a_tensor_is():
    texts = Texts(SAMPLES)
    assert (len(texts), texts.shape, texts[3]) == (40, torch.Size([]), SAMPLES[3])
    assert words(texts[torch.tensor([5, 0, 5])]) == ["text 5", "text 0", "text 5"]
    assert words(texts[:2]) == ["text 0", "text 1"] and list(texts) == SAMPLES
    assert len(texts[torch.tensor([], dtype=torch.int64)]) == 0


@pytest.mark.parametrize(
    "other",
    [
        Sample("b"),
        Sample("a", pair="b"),
        Sample("a", prompt=""),
        Sample("a", spans=()),
        Sample(messages=(("user", "a"),)),
        Sample(messages=(("assistant", "a"),)),
        Sample("a", spans=((0, 1, "x"),)),
    ],
)
def test_the_digest_is_of_what_is_read_and_not_of_where_it_stood(other):
    one, two = Texts([Sample("a", at="a.csv, line 2"), Sample("b")]), Texts([Sample("a"), Sample("b")])
    assert one.digest() == two.digest() and len(one.digest()) == 32
    assert Texts([other, Sample("b")]).digest() != one.digest()
    assert Texts([Sample("b"), Sample("a")]).digest() != one.digest()


def test_what_is_learned_has_no_prompts_and_what_is_read_a_size():
    turns = (("user", "hello"), ("assistant", "good"), ("user", "bye"), ("assistant", "day"))
    texts = Texts([Sample("\na", prompt="long"), Sample("a", pair="bc"), Sample(messages=turns), Sample("é😀")])
    assert texts.learned() == ["\na", "a\nbc", "good\nday", "é😀"]
    assert texts.sizes().tolist() == [6, 3, 15, 2] and texts.nbytes == 4 * 26


def test_any_text_has_a_digest():
    assert Texts([Sample("\ud800 😀\n")]).digest() != Texts([Sample("\ud801 😀\n")]).digest()


def test_a_table_of_texts_has_samples_without_a_shape():
    made = table()
    assert (made.shape, made.is_text, made.texts, len(made)) == (torch.Size([]), True, made.x, 40)
    with pytest.raises(MeshError, match="texts where numbers are needed"):
        made.tensor  # noqa: B018
    numbers = Table(torch.zeros(3, 2), None, 2)
    assert numbers.tensor is numbers.x and not numbers.is_text and numbers.shape == (2,)
    with pytest.raises(MeshError, match=r"samples of shape \[2\] where texts are needed"):
        numbers.texts  # noqa: B018


def test_splits_and_streams_over_texts_are_those_over_numbers():
    data = DataSpec(dataset="given", test=0.25, validation=0.25, transfer=4, seed=3)
    streams = {
        "few": StreamSpec(size=8),
        "two": StreamSpec(only=[0, 1]),
        "own": StreamSpec(shards=ShardSpec(by="dirichlet", of=["a", "b"], alpha=5)),
    }
    numbers = replace(table(), x=torch.zeros(40, 2))
    one, two = resolve(table(), data, streams), resolve(numbers, data, streams)
    assert list(one) == list(two) == ["train", "validation", "test", "transfer", "few", "two", "own"]
    assert all(torch.equal(one[name].rows, two[name].rows) for name in one)
    assert all(torch.equal(one["own"].shards[name], two["own"].shards[name]) for name in "ab")
    assert table().y[one["test"].rows].bincount().tolist() == [3, 3, 2, 2]


def test_texts_without_labels_are_split_and_divided_by_column():
    made = table(labelled=False)
    found = resolve(made, DataSpec(dataset="given"), {})
    assert sum(len(stream.rows) for stream in found.values()) == 40
    assert found["train"].labelled  # the tokens of a text are what is learned
    parts = shard(torch.arange(40), made, ShardSpec(by="column", column="role", of=["a", "b"]), 0)
    assert set(parts["a"].remainder(5).tolist()) == {0, 2, 4} and set(parts["b"].remainder(5).tolist()) == {1, 3}
    with pytest.raises(MeshError, match="`by: class` needs labels"):
        shard(torch.arange(40), made, ShardSpec(by="class", of=["a", "b"]), 0)


def test_a_host_holds_no_text_nor_column_of_another_agents_sample():
    shards = {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 3])}
    kept = own_part(table(), {"own": Stream("own", torch.arange(4), True, True, shards)}, ["a"])
    assert words(kept.texts)[:5] == ["text 0", "text 1", "", "", "text 4"]
    assert kept.y[:5].tolist() == [0, 1, NOBODY, NOBODY, 0] and kept.columns["role"][:5] == ["r0", "r1", "", "", "r4"]
    assert all(sample.at == "a private sample of another agent" for sample in kept.texts[2:4])
    assert len(kept) == 40 and words(table().texts)[2] == "text 2"


def test_blank_texts_keep_nothing():
    full = Sample("a", "b", "c", (("assistant", "d"),), ((0, 1, "e"),), "f")
    [blank, kept] = Texts([full, full]).blanked(torch.tensor([True, False]))
    assert kept is full
    assert (blank.text, blank.pair, blank.prompt, blank.messages, blank.spans) == ("", None, None, None, None)


def test_tables_of_texts_join():
    joined = join(table(), test=replace(table(), x=Texts(SAMPLES[:3]), y=torch.tensor([0, 1, 2]), columns={}))
    assert words(joined.texts) == words(SAMPLES) + words(SAMPLES[:3])
    assert joined.official["test"].tolist() == [40, 41, 42] and joined.y[40:].tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="no common table"):
        concatenate([Texts(SAMPLES), torch.zeros(1, 2)])
