"""A sample is known by its values, whatever it comes in; records of many samples hold some of them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.builtin.datasets.csv_file import csv_file
from kdmesh.builtin.datasets.text import text
from kdmesh.streams import contents
from kdmesh.streams.contents import Keys, keys, pack
from kdmesh.streams.texts import Sample, Texts


def drawn(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *(shape or (4,)), generator=torch.Generator().manual_seed(seed))


def test_a_sample_has_one_key_in_every_file_order_and_shape(tmp_path):
    x = drawn(30, 4)
    rows = [[*map(repr, row.tolist()), number % 2] for number, row in enumerate(x)]
    for name, some in (("all", rows), ("turned", rows[::-1])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["a", "b", "c", "d", "label"], *some])
    known = keys(x)
    assert len(known.unique()) == 30 and known.dtype == torch.int64
    assert torch.equal(csv_file(str(tmp_path / "all.csv")).keys, known)
    assert torch.equal(csv_file(str(tmp_path / "turned.csv")).keys, known.flip(0))
    for same in (x.double(), x.view(30, 2, 2), x.numpy().T.copy().T):
        labels = torch.zeros(30, dtype=torch.int64)  # other labels than the files have
        assert torch.equal(kdmesh.data((torch.as_tensor(same), labels)).keys, known)


def test_pixels_have_one_key_scaled_or_not():
    pixels = torch.randint(0, 256, (50, 1, 5, 5), generator=torch.Generator().manual_seed(0))
    known = keys(pixels.float())
    assert torch.equal(keys(pixels.float().div_(255)), known)
    assert torch.equal(keys(torch.from_numpy((pixels.numpy() / 255).astype(np.float32)).flatten(1)), known)
    assert len(known.unique()) == 50 and not torch.isin(keys(pixels.float() / 128), known).any()
    assert torch.equal(keys(torch.tensor([[0.0, 1.5]])), keys(torch.tensor([[-0.0, 1.5]])))


def test_the_key_of_a_sample_never_changes():
    """Records are kept for years: these are the first 8 bytes of the sha256 of little-endian float32, and of JSON."""
    assert keys(torch.tensor([[1.5, -2.0]])).tolist() == [KNOWN[0]]
    assert keys(Texts([Sample("a text", prompt="ä")])).tolist() == [KNOWN[1]]


KNOWN = (5314982133254794021, 1077161482753345193)


def test_a_text_has_one_key_in_every_file_whatever_its_label(tmp_path):
    rows = [{"text": f"text {number}, ä", "label": "ab"[number % 2]} for number in range(10)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with (tmp_path / "b.csv").open("w", newline="", encoding="utf-8") as file:
        made = csv.writer(file)
        made.writerow(["text", "label"])
        made.writerows([row["text"], "ba"[number % 2]] for number, row in enumerate(rows))
    first = text(path=str(tmp_path / "a.jsonl"), label="label")
    assert torch.equal(first.keys, text(path=str(tmp_path / "b.csv"), label="label").keys)
    assert torch.equal(text(path=str(tmp_path / "b.csv")).keys, first.keys)  # for a language model
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows[::-1]), tmp_path / "c.parquet")
    assert torch.equal(text(path=str(tmp_path / "c.parquet"), label="label").keys.flip(0), first.keys)
    assert torch.equal(keys(Texts([Sample(rows[3]["text"], spans=((0, 4, "T"),))])), first.keys[3:4])
    assert len(keys(Texts([Sample("a"), Sample("", pair="a"), Sample(prompt="a")])).unique()) == 3


def test_records_tell_of_what_they_hold(monkeypatch):
    known = keys(drawn(1000))
    whole = Keys(pack(torch.cat([known[:700], known[:100]])))
    assert whole.count == 700 and whole.told(known).all()
    assert whole.have(known).tolist() == [True] * 700 + [False] * 300
    monkeypatch.setattr(contents, "MOST", 100)
    part = Keys(pack(known[:700]))
    told = part.told(known)
    assert part.count == 700 and int((told[:700]).sum()) == 100 and 20 < int(told[700:].sum()) < 70
    assert part.have(known[told]).tolist() == [bool(row < 700) for row in told.nonzero().flatten()]
    assert Keys(pack(known[:0])).have(known).sum() == 0


@pytest.mark.parametrize(
    "broken",
    [{}, {"count": 1}, {"count": 1, "keys": "!"}, {"count": 0, "keys": "AAAAAAAAAAA="}, {"count": 1, "keys": "AAA="},
     {"count": 9, "keys": ""}, {"count": "many", "keys": ""}, {"count": 1, "keys": 3}],
)  # fmt: skip
def test_broken_keys_are_an_error(broken):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Keys(broken)
