"""Tables of every kind, rows without labels in each of them, and texts from Python."""

from __future__ import annotations

import datetime
import json
import sqlite3

import pyarrow
import pyarrow.parquet
import pytest
import torch

import kdmesh
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.spec.data import DataSpec
from kdmesh.streams.splits import split
from kdmesh.streams.texts import Sample

OFFERS = {offer.name: offer for offer in DATASETS}
ROWS = [(1.5, 2, "Bern", "x"), (2.5, 3, "Rome", "y"), (3.5, 1, "Oslo", ""), (4.5, 0, "Riga", "y"), (5.5, 8, "Lima", "")]
NAMES = ("a", "b", "city", "label")


def read(name, **config):
    return OFFERS[name].make({key: str(value) if key.endswith("path") else value for key, value in config.items()})


def refused(name, what, instead="", **config):
    with pytest.raises(MeshError, match=what) as error:
        read(name, **config)
    assert error.value.where.startswith(f"data.dataset.{name}"), error.value.where
    assert instead in error.value.instead, error.value.instead


def csv(path, rows=ROWS, names=NAMES, delimiter=",", encoding="utf-8"):
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in (names, *rows)), encoding=encoding)
    return path


def jsonl(path, rows=ROWS, names=NAMES):
    cells = [{name: None if cell == "" else cell for name, cell in zip(names, row, strict=True)} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in cells))
    return path


def parquet(path, rows=ROWS, names=NAMES):
    cells = [{name: None if cell == "" else cell for name, cell in zip(names, row, strict=True)} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(cells), path)
    return path


def sql(path, rows=ROWS, names=NAMES):
    with sqlite3.connect(path) as base:
        base.execute(f"create table t ({', '.join(names)})")
        base.executemany(f"insert into t values ({', '.join('?' * len(names))})", [
            [None if cell == "" else cell for cell in row] for row in rows
        ])  # fmt: skip
    base.close()
    return path


WRITERS = {"csv": csv, "jsonl": jsonl, "parquet": parquet, "sql": sql}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_rows_with_an_empty_label_are_the_pool_of_every_kind_of_table(tmp_path, kind):
    path = WRITERS[kind](tmp_path / f"some.{kind}")
    more = {"query": "select * from t order by rowid"} if kind == "sql" else {}
    table = read(kind, path=path, **more)
    assert table.x.tolist() == [[1.5, 2], [2.5, 3], [4.5, 0], [3.5, 1], [5.5, 8]], "those with labels first"
    assert table.y.tolist() == [0, 1, 1, -1, -1] and table.labels == ["x", "y"] and table.classes == 2
    assert {name: rows.tolist() for name, rows in table.official.items()} == {"train": [0, 1, 2], "transfer": [3, 4]}
    assert table.columns == {"city": ["Bern", "Rome", "Riga", "Oslo", "Lima"]}
    assert (
        len(table.notes) == 1 and "2 of 5 rows have no label in column 'label': the split `transfer`" in table.notes[0]
    )
    parts = split(table, DataSpec(dataset=kind, test=1, validation=0))
    assert {name: len(rows) for name, rows in parts.items()} == {"test": 1, "transfer": 2, "train": 2}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_split_may_have_a_path(tmp_path, kind):
    write = WRITERS[kind]
    paths = {
        "path": write(tmp_path / f"a.{kind}", ROWS[:2]),
        "validation_path": write(tmp_path / f"b.{kind}", ROWS[3:4]),
        "test_path": write(tmp_path / f"c.{kind}", ROWS[:1]),
        "transfer_path": write(tmp_path / f"d.{kind}", [row[:3] for row in ROWS[3:]], NAMES[:3]),
    }
    table = read(kind, **paths)
    assert {name: rows.tolist() for name, rows in table.official.items()} == {
        "train": [0, 1], "validation": [2], "test": [3], "transfer": [4, 5],
    }  # fmt: skip
    assert table.y.tolist() == [0, 1, 1, 0, -1, -1] and table.columns["city"][-1] == "Lima" and not table.notes
    write(paths["transfer_path"], [row[:2] for row in ROWS], NAMES[:2])
    refused(kind, f"d.{kind}: columns differ from .*a.{kind}: city", "same columns", **paths)


def test_several_values_and_indicators_may_be_missing_together_alone(tmp_path):
    rows = [(1, 0.5, 1, 0), (2, 1.5, 0, 1), (3, "", "", ""), (4, 2, 1, 1)]
    path = csv(tmp_path / "v.csv", rows, ("a", "u", "p", "q"))
    table = read("csv", path=path, values=["u"], features=["a"])
    assert table.y[:3].flatten().tolist() == [0.5, 1.5, 2.0] and table.y[3].isnan().all() and table.kind == "values"
    table = read("csv", path=path, indicators=["p", "q"], features=["a"])
    assert table.y.tolist() == [[1, 0], [0, 1], [1, 1], [-1, -1]]
    csv(path, [*rows, (5, 1, "", 1)], ("a", "u", "p", "q"))
    refused("csv", "v.csv, column 'p', line 6: '' is neither 1 nor 0", path=path, indicators=["p", "q"], features=["a"])


def test_labels_in_test_alone_and_nowhere(tmp_path):
    none = csv(tmp_path / "a.csv", [(*row[:3], "") for row in ROWS])
    test = csv(tmp_path / "t.csv", ROWS[:2])
    what = "a.csv: no row has a label in column 'label', and .*t.csv alone has some"
    refused("csv", what, "transfer_path", path=none, test_path=test)
    refused("csv", "a.csv: no row has a label in column 'label'\n", path=none)
    refused("csv", "no row has a label", "for rows that all have none (classes: 2), no setting `label`", path=none,
            classes=2)  # fmt: skip
    refused("csv", "t.csv alone has some", "labels to learn from", path=none, test_path=test, classes=2)
    bare = csv(tmp_path / "b.csv", [row[:3] for row in ROWS], NAMES[:3])
    refused("csv", "no column 'label'", path=bare)
    table = read("csv", path=bare, classes=2)
    assert table.y is None and table.classes == 2 and not table.official and not table.reads


def test_held_out_rows_without_a_label_are_refused(tmp_path):
    train, test = csv(tmp_path / "a.csv", ROWS[:2]), csv(tmp_path / "t.csv", ROWS)
    refused("csv", "t.csv, column 'label', line 4: '' is not a class; 2 rows have no label", path=train, test_path=test)


def test_columns_that_change_between_splits_and_an_empty_column(tmp_path):
    train = csv(tmp_path / "a.csv", [(*row, "") for row in ROWS], (*NAMES, "gone"))
    refused("csv", "t.csv: columns differ from .*a.csv: gone", path=train, test_path=csv(tmp_path / "t.csv", ROWS[:2]))
    assert read("csv", path=train).left_out["gone"] == "every cell is empty"
    refused("csv", "a.csv, column 'gone', line 2: '' is not a finite number", path=train, features=["a", "gone"])


def test_delimiters_and_encodings(tmp_path):
    plain = read("csv", path=csv(tmp_path / "a.csv"))
    tab = csv(tmp_path / "a.tsv", delimiter="\t")
    odd = csv(tmp_path / "b.csv", [(*row[:2], "Zürich", row[3]) for row in ROWS], delimiter=";", encoding="latin-1")
    assert read("csv", path=tab).fingerprint == plain.fingerprint
    table = read("csv", path=odd, delimiter=";", encoding="latin-1")
    assert table.fingerprint == plain.fingerprint and set(table.columns["city"]) == {"Zürich"}
    assert table.reads == {"label": "label", "delimiter": ";", "encoding": "latin-1"}
    refused("csv", "byte .* is not UTF-8", "UTF-8", path=odd, delimiter=";")
    refused("csv", "no column 'label'", path=odd, encoding="latin-1")
    marked = csv(tmp_path / "marked.csv", encoding="utf-8-sig")
    for lazy in (False, True):  # which has a mark of its own before the first name
        assert read("csv", path=marked, encoding="utf-8", lazy=lazy).features == read("csv", path=marked).features
    with pytest.raises(ValueError, match="a quote or a line break"):
        read("text", path=odd, delimiter='"')
    for wrong in ({"encoding": "rot13"}, {"encoding": "none"}, {"delimiter": '"'}, {"delimiter": ";;"}):
        with pytest.raises(ValueError, match=r"encoding|delimiter"):
            read("csv", path=odd, **wrong)
    texts = csv(tmp_path / "t.csv", [("é", "x"), ("to", ""), ("du", "y")], ("text", "kind"), ";", "cp1252")
    found = read("text", path=texts, label="kind", delimiter=";", encoding="cp1252")
    assert [one.text for one in found.texts] == ["é", "du", "to"] and found.y.tolist() == [0, 1, -1]


def test_a_database_is_only_read(tmp_path):
    path = sql(tmp_path / "some.db")
    everything = "select a, b, city, label from t order by rowid"
    table = read("sql", path=path, query=f"{everything} limit 2", test_query="select * from t where city = 'Riga'",
                 transfer_query="select a, b, city from t where label is null")  # fmt: skip
    assert table.y.tolist() == [0, 1, 1, -1, -1] and list(table.official) == ["train", "test", "transfer"]
    assert table.source == "some.db"
    for query, what in {
        "delete from t": "reads nothing",
        "with x as (select 1) delete from t": "attempt to write a readonly database",
        "select none from t": "no such column: none",
        "select a, a from t": r"columns \['a', 'a'\]",
        "select * from t where a > 99": "no rows",
        "select 1; drop table t": "one statement at a time",
    }.items():
        refused("sql", what, path=path, query=query)
    assert len(read("sql", path=path, query=everything)) == 5
    refused("sql", "no file", path=tmp_path / "none.db", query=everything)
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "bad.db").write_bytes(b"not a database" * 100)
    refused("sql", "file is not a database", path=tmp_path / "bad.db", query=everything)


def test_a_password_stands_in_no_file(monkeypatch):
    refused("sql", "has a password", "url_env", url="postgresql://me:secret@localhost/x", query="select 1")
    refused("sql", "no variable 'KDMESH_NO_SUCH'", url_env="KDMESH_NO_SUCH", query="select 1")
    monkeypatch.setenv("KDMESH_SOME_URL", "sqlite:///some.db")
    refused("sql", "an SQLite file", "path: FILE", url_env="KDMESH_SOME_URL", query="select 1")
    refused("sql", "no such database", "driver", url="nosuch://localhost/x", query="select 1")
    with pytest.raises(ValueError, match="one of `path`, `url` and `url_env`"):
        read("sql", query="select 1")


def test_a_colon_or_a_percent_sign_in_a_query_is_no_parameter(tmp_path):
    path = sql(tmp_path / "some.sql", [("x", 1), ("y", 2), ("a:b", 3)], ("label", "n"))
    query = "select label, n from t where label <> 'a:b' and label not like '%z:name' order by n desc"
    table = read("sql", path=path, query=query)
    assert table.x[:, 0].tolist() == [2, 1]


def test_decimals_are_numbers_and_dates_are_text(tmp_path):
    from decimal import Decimal

    from kdmesh.tables.rows import cell

    assert cell(Decimal("1.5")) == 1.5 and cell(None) == "" and cell(datetime.date(2026, 1, 2)) == "2026-01-02"
    rows = [("x", Decimal("1.50"), datetime.date(2026, 1, 2)), ("y", Decimal("20"), datetime.date(2026, 1, 3))]
    table = read("parquet", path=parquet(tmp_path / "d.parquet", rows, ("label", "price", "day")))
    assert table.features == ["price"] and table.x.tolist() == [[1.5], [20.0]] and [*table.left_out] == ["day"]


def test_texts_have_a_pool_of_their_own(tmp_path):
    path = csv(tmp_path / "a.csv", [("one", "x"), ("two", ""), ("three", "y")], ("text", "kind"))
    pool = csv(tmp_path / "p.csv", [("four",), ("five",)], ("text",))
    table = read("text", path=path, label="kind", transfer_path=pool)
    assert [one.text for one in table.texts] == ["one", "three", "two", "four", "five"]
    assert table.y.tolist() == [0, 1, -1, -1, -1] and table.official["transfer"].tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match="`transfer_path` goes with `label`"):
        read("text", path=path, transfer_path=pool)


# From Python


def test_texts_from_python():
    table = kdmesh.data([("a text", "good"), ("another", "bad"), ("a third", None)], test=[("more", "good")])
    assert [one.text for one in table.texts] == ["a text", "another", "more", "a third"]
    assert table.y.tolist() == [1, 0, 1, -1] and table.labels == ["bad", "good"]
    assert {name: rows.tolist() for name, rows in table.official.items()} == {
        "train": [0, 1], "test": [2], "transfer": [3],
    }  # fmt: skip
    numbers = kdmesh.data([("a", 0), ("b", 2)], transfer=["c", "d"])
    assert numbers.classes == 3 and numbers.y.tolist() == [0, 2, -1, -1] and not numbers.labels
    assert kdmesh.data(["a", "b"]).y is None and kdmesh.data(["a"], classes=2).classes == 2
    assert kdmesh.data([(Sample("a", pair="b"), 1), (Sample("c", pair="d"), 0)]).texts[0].pair == "b"
    for wrong, what in {
        (("a", 0), ("", 1)): "text 1 is ''",
        (("a", 0), (7, 1)): "text 1 is 7",
        (("a", 0), ("b", 1.5)): "the label of text 1 is 1.5",
        (("a", 0), ("b", "x")): "labels are numbers and names",
        (("a", 0), ("b", -1)): "label -1 is negative",
    }.items():
        with pytest.raises(MeshError, match=what):
            kdmesh.data(list(wrong))
    with pytest.raises(MeshError, match="its class 'odd' is none of train's"):
        kdmesh.data([("a", "good"), ("b", "bad")], test=[("c", "odd")])


def test_a_pool_of_samples_from_python():
    x, y = torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    for pool in (torch.ones(2, 3), (torch.ones(2, 3),), (torch.ones(2, 3), torch.tensor([7, 9])),
                 [torch.ones(3), torch.ones(3)], torch.utils.data.TensorDataset(torch.ones(2, 3))):  # fmt: skip
        table = kdmesh.data((x, y), transfer=pool)
        assert table.y.tolist() == [*y.tolist(), -1, -1] and table.x[6:].eq(1).all() and table.classes == 3
        assert table.official["transfer"].tolist() == [6, 7]
    values = kdmesh.data((x, torch.rand(6, 2)), transfer=torch.ones(2, 3))
    assert values.y[6:].isnan().all() and values.kind == "values"
    with pytest.raises(MeshError, match=r"samples of \[4\]; train has \[3\]"):
        kdmesh.data((x, y), transfer=torch.ones(2, 4))


@pytest.mark.parametrize("kind", ["values", "indicators", "classes"])
def test_a_student_learns_from_teachers_alone_on_a_pool(tmp_path, kind):
    drawn = torch.Generator().manual_seed(0)
    rows = [(*pair, int(sum(pair) > 0), sum(pair)) for pair in torch.randn(60, 2, generator=drawn).tolist()]
    rows = [row if number % 3 else (*row[:2], "", "") for number, row in enumerate(rows)]
    path = csv(tmp_path / "a.csv", rows, ("a", "b", "up", "sum"))
    learned, task, objective = {
        "values": ({"values": ["sum"]}, "regression", "mse"),
        "indicators": ({"indicators": ["up"]}, "multi_label", "binary_kl"),
        "classes": ({"label": "up"}, "classification", "kl"),
    }[kind]
    fields = {
        "name": "m",
        "task": task,
        "data": {"dataset": {"csv": {"path": str(path), "features": ["a", "b"], **learned}}},
        "agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in "ts"},
        "connect": [{"ensemble": {"teachers": "t", "student": "s", "stream": "transfer", "labels": None,
                                  "objective": objective}}],
        "train": {"epochs": 2, "batch_size": 8},
    }  # fmt: skip
    result = kdmesh.Mesh(**fields).run(backend="inline", store="off")
    assert "test" in result["s"].metrics and result["s"].weights_sha256 != result["t"].weights_sha256


def test_predict_reads_files_as_those_that_were_learned(tmp_path, capsys):
    rows = [(number, number % 3, "xy"[number % 2]) for number in range(30)]
    path = csv(tmp_path / "a.csv", rows, ("a", "ü", "label"), ";", "latin-1")
    data = {"dataset": {"csv": {"path": str(path), "delimiter": ";", "encoding": "latin-1"}}}
    mesh = kdmesh.Mesh(name="m", data=data, agents={"s": {"model": {"mlp": {"hidden": [4]}}}}, train={"epochs": 1})
    folder = mesh.run(backend="inline", out=tmp_path / "runs", store="off").folder / "agents" / "s"
    capsys.readouterr()
    assert main(["predict", str(folder), str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 31
