"""Which columns of a file are used, and why others are not: by all of their cells, whatever the first one is."""

from __future__ import annotations

import datetime
import decimal
import random

import pytest

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError

OFFERS = {offer.name: offer for offer in DATASETS}


def read(tmp_path, header, rows, name="csv", **config):
    path = tmp_path / "data.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return OFFERS[name].make({"path": str(path), **config})


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["Rome", "Oslo"], "'Rome' is not a number"),
        (["True", "False"], "true and false, no numbers"),
        (['"1,5"', '"2,5"'], "'1,5' is not a number (a decimal point is needed)"),
        (["", ""], "every cell is empty"),
        (["n/a", "n/a", "3"], "'n/a' is not a number, as are 8 of 12 cells"),
        (["1_0", "2_0"], "'1_0' is not a number"),
        (["2021-01-02"], "'2021-01-02' is not a number"),
    ],
)
def test_a_column_that_is_left_out_says_why(tmp_path, cells, why):
    table = read(tmp_path, "a,odd,label", [f"{i},{cells[i % len(cells)]},{'xy'[i % 2]}" for i in range(12)])
    assert (table.features, table.left_out) == (["a"], {"odd": why})
    assert len(table.columns["odd"]) == 12


@pytest.mark.parametrize("at", [0, 7, 11])
@pytest.mark.parametrize("cell", ["", "old", "nan", "inf"])
def test_a_gap_in_numbers_is_refused_wherever_it_stands(tmp_path, at, cell):
    rows = [f"{cell if i == at else i},{i},{'xy'[i % 2]}" for i in range(12)]
    with pytest.raises(MeshError, match=f"column 'age', line {at + 2}: '{cell}' is not a finite number") as error:
        read(tmp_path, "age,b,label", rows)
    assert "`features` without this column" in error.value.instead
    assert read(tmp_path, "age,b,label", rows, features=["b"]).features == ["b"]


def test_columns_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [f"{i},{'' if i % 3 else 4},{['nan', '1_0', 'cat'][i % 3]}" for i in range(30)]
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        table = read(tmp_path, "a,b,label", rows)
        found.append((table.features, list(table.left_out), table.labels))
    assert found[0] == found[1] == found[2] == (["a"], ["b"], ["1_0", "cat", "nan"])


def test_a_bad_label_is_answered_with_advice_about_labels(tmp_path):
    with pytest.raises(MeshError, match="column 'label', line 4: 'oops'") as error:
        read(tmp_path, "a,label", ["1,0", "2,1", "3,oops", "4,1"])
    assert "features" not in error.value.instead


def test_a_column_that_numbers_the_rows_is_named(tmp_path):
    table = read(tmp_path, "id,a,label", [f"{i + 7},{i % 3},{i % 2}" for i in range(9)])
    assert table.features == ["id", "a"] and table.notes == ["column 'id' numbers the rows, and is a feature"]


def test_cells_may_be_long(tmp_path):
    table = read(tmp_path, "a,t,label", [f"{i},{'w' * 200_000},{i % 2}" for i in range(3)])
    assert len(table.columns["t"][0]) == 200_000


def test_many_columns_are_read_in_one_go(tmp_path):
    names = [f"c{i}" for i in range(20_000)]
    rows = [",".join(["0.5"] * len(names)) + f",{i % 2}" for i in range(3)]
    assert read(tmp_path, ",".join(names) + ",label", rows).x.shape == (3, 20_000)


def test_columns_of_parquet_that_nobody_uses_may_hold_anything(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    odd = [{"b": b"\xff", "d": datetime.date(2026, 1, 2), "n": decimal.Decimal("1.5")}] * 4
    table = arrow.table({"text": ["a", "b", "c", "d"], "label": ["x", "y", "x", "y"], "odd": odd,
                         "when": [datetime.datetime(2026, 1, 2)] * 4, "raw": [b"\x00\xff"] * 4})  # fmt: skip
    parquet.write_table(table, tmp_path / "a.parquet")
    made = OFFERS["text"].make({"path": str(tmp_path / "a.parquet"), "label": "label"})
    assert made.labels == ["x", "y"] and "2026-01-02" in made.columns["odd"][0]
