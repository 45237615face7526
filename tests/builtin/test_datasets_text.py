from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest
from pydantic import ValidationError

from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.errors import MeshError
from kdmesh.streams.texts import turn_of
from kdmesh.tables import parquet as _parquet

OFFERS = {offer.name: offer for offer in DATASETS}
ROWS = [
    {"text": "What is a mesh ?", "kind": "DESC", "city": "Bern"},
    {"text": "Who, then,\nreads it ?", "kind": "HUM", "city": "Rome"},
    {"text": "Where is “Köln” ?", "kind": "DESC", "city": "Köln"},
]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def read(**config):
    return OFFERS["text"].make(config)


def refused(what, where="path", **config):
    with pytest.raises(MeshError, match=what) as error:
        read(**config)
    assert error.value.where == f"data.dataset.text.{where}"
    assert error.value.instead


def as_csv(rows):
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    sink = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


WRITERS = {"csv": as_csv, "jsonl": as_jsonl, "parquet": parquet}


def put(folder, name, rows):
    """Write rows in the form that the name ends in; returns the path."""
    kind = name.removesuffix(".gz").rpartition(".")[2]
    data = WRITERS[kind](rows)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder / name)


def save(folder, rows, **more):
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list(part) for name, part in {"train": rows, **more}.items()}
    (datasets.DatasetDict(parts) if more else parts["train"]).save_to_disk(str(folder))
    return str(folder)


# what is read


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, name):
    path, test = put(tmp_path, name, ROWS), put(tmp_path, f"test-{name}", ROWS[1:])
    table = read(path=path, label="kind", test_path=test, validation_path=put(tmp_path, f"v-{name}", ROWS[:1]))
    assert [sample.text for sample in table.texts] == [row["text"] for row in [*ROWS, ROWS[0], *ROWS[1:]]]
    assert table.y.tolist() == [0, 1, 0, 0, 1, 0] and table.labels == ["DESC", "HUM"] and table.classes == 2
    assert table.columns == {"city": ["Bern", "Rome", "Köln", "Bern", "Rome", "Köln"]}
    assert {part: rows.tolist() for part, rows in table.official.items()} == {
        "train": [0, 1, 2],
        "validation": [3],
        "test": [4, 5],
    }
    last = {"csv": "line 5", "jsonl": "line 3", "parquet": "row 2"}[name.removesuffix(".gz").rpartition(".")[2]]
    assert table.texts[2].at == f"{name}, {last}" and table.source == path


@pytest.mark.parametrize("parts", [False, True])
def test_a_saved_folder_gives_the_same_table(tmp_path, parts):
    path = save(tmp_path / "set", ROWS, **({"test": ROWS[1:]} if parts else {}))
    table = read(path=path, label="kind", licence="CC0-1.0")
    rows = [*ROWS, *(ROWS[1:] if parts else [])]
    assert [sample.text for sample in table.texts] == [row["text"] for row in rows]
    assert table.labels == ["DESC", "HUM"] and table.licence == "CC0-1.0"
    assert list(table.official) == (["train", "test"] if parts else [])
    assert table.texts[1].at == f"{path}, split train, row 1"


def test_a_saved_folders_splits_are_chosen_and_its_class_names_kept(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    rows = [{"sentence": "good", "label": 0}, {"sentence": "bad", "label": 1}]
    part = datasets.Dataset.from_list(rows, features=features)
    datasets.DatasetDict({"train": part, "test": part, "dev": part}).save_to_disk(str(tmp_path / "set"))
    config = {"path": str(tmp_path / "set"), "text": "sentence", "label": "label"}
    table = read(**config, splits={"train": "train", "validation": "dev"})
    assert (table.labels, table.y.tolist(), list(table.official)) == (
        ["pos", "neg"],
        [0, 1] * 2,
        ["train", "validation"],
    )
    refused("no split 'dve'", **config, splits={"train": "train", "validation": "dve"})
    refused("no split is named train", **config, splits={"test": "test"})
    refused("has splits of its own", "test_path", **config, test_path="a.csv")
    assert read(**config, classes=3).classes == 3


def test_a_file_has_no_splits_to_choose_from(tmp_path):
    refused("is one file", "splits", path=put(tmp_path, "a.csv", ROWS), splits={"train": "train"})


def test_a_hub_id_is_read_with_its_configuration_and_revision(monkeypatch):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list(ROWS)
    asked = []

    def load_dataset(*names, **more):
        asked.append((names, more))
        return datasets.DatasetDict({"train": part, "test": part})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    table = read(hub="some/set", name="small", revision="v1", label="kind")
    assert asked == [(("some/set", "small"), {"revision": "v1"})]
    assert len(table) == 6 and list(table.official) == ["train", "test"] and table.source == "some/set"

    def offline(*names, **more):
        raise ConnectionError("no route to the hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    refused("some/set: ConnectionError: no route to the hub\n", "hub", hub="some/set")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_columns_make_pairs_prompts_messages_and_spans(tmp_path, name):
    nested = json.dumps if name == "a.csv" else lambda value: value
    spans = [{"start": 6, "end": 8, "label": "WHO"}, {"start": 0, "end": 2, "label": "WHAT"}]
    row = {"a": "one two three", "b": "b", "turns": nested(CHAT), "spans": nested(spans)}
    path = put(tmp_path, name, [row, row])
    pair = read(path=path, text="a", pair="b").texts[0]
    assert (pair.text, pair.pair, pair.prompt) == ("one two three", "b", None)
    prompt = read(path=path, text="a", prompt="b")
    assert (prompt.texts[0].prompt, prompt.y, prompt.classes, prompt.labels) == ("b", None, 0, [])
    assert read(path=path, messages="turns").texts[0].messages == (("user", "hi"), ("assistant", "hello"))
    tagged = read(path=path, text="a", spans="spans")
    assert tagged.texts[1].spans == ((0, 2, "WHAT"), (6, 8, "WHO"))
    assert (tagged.tags, tagged.classes, tagged.y) == (["O", "WHAT", "WHO"], 3, None)
    assert read(path=path, text="a", spans="spans", labels=["WHO", "X", "WHAT"]).tags == ["O", "WHO", "X", "WHAT"]


def test_spans_may_be_triples_and_a_row_may_have_none(tmp_path):
    rows = [{"text": "Ann met Bo", "spans": [[0, 3, "PERSON"]]}, {"text": "hi", "spans": []}]
    table = read(path=put(tmp_path, "a.jsonl", rows), spans="spans")
    assert [sample.spans for sample in table.texts] == [((0, 3, "PERSON"),), ()]


def test_a_prompt_may_be_empty_and_a_text_may_hold_only_some_space(tmp_path):
    table = read(path=put(tmp_path, "a.jsonl", [{"text": " a\n", "prompt": ""}]), prompt="prompt")
    assert (table.texts[0].text, table.texts[0].prompt) == (" a\n", "")


def test_classes_are_numbers_or_in_the_order_of_their_names(tmp_path):
    numbers = put(tmp_path, "n.csv", [{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    assert read(path=numbers, label="label").labels == []
    named = read(path=numbers, label="label", labels=["negative", "positive"])
    assert (named.y.tolist(), named.labels, named.classes) == ([1, 0], ["negative", "positive"], 2)
    assert read(path=numbers, label="label", classes=5).classes == 5
    words = put(tmp_path, "w.csv", ROWS)
    assert read(path=words, label="kind", labels=["HUM", "DESC", "LOC"]).y.tolist() == [1, 0, 1]
    refused(
        "column 'kind', line 3: 'HUM' is not a class of the given labels", path=words, label="kind", labels=["DESC"]
    )
    refused("line 2: label 1 is beyond the 1 classes", path=numbers, label="label", classes=1)


LABELLED = [
    {"text": "what ?", "funny": 1, "short": 0, "stars": 4.5, "city": "Bern"},
    {"text": "who ?", "funny": 0, "short": 0, "stars": 1, "city": "Rome"},
]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_columns_of_labels_are_values_or_indicators_in_the_order_they_are_named(tmp_path, name):
    path, test = put(tmp_path, name, LABELLED), put(tmp_path, f"test-{name}", LABELLED[:1])
    table = read(path=path, test_path=test, indicators=["short", "funny"])
    assert (table.kind, table.y.tolist(), table.classes) == ("indicators", [[0, 1], [0, 0], [0, 1]], 0)
    assert table.labels == ["short", "funny"] and list(table.columns) == ["stars", "city"]
    assert table.official["test"].tolist() == [2]
    table = read(path=path, values=["stars"])
    assert (table.kind, table.y.tolist(), table.labels) == ("values", [[4.5], [1.0]], ["stars"])


def test_a_saved_folder_has_indicators_too(tmp_path):
    rows = [{**row, "funny": bool(row["funny"])} for row in LABELLED]
    assert read(path=save(tmp_path / "set", rows), indicators=["funny"]).y.tolist() == [[1], [0]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"values": ["star"]}, "no column 'star'"),
        ({"values": ["stars", "city"]}, "column 'city', line .: 'Bern' is not a finite number; 2 of the 2 cells"),
        ({"indicators": ["funny", "stars"]}, "column 'stars', line .: '?4.5'? is neither 1 nor 0"),
        ({"indicators": ["city"]}, "column 'city', line .: 'Bern' is neither 1 nor 0"),
    ],
)
def test_columns_that_are_no_such_labels_are_refused(tmp_path, name, config, what):
    refused(what, path=put(tmp_path, name, LABELLED), **config)


def test_parts_share_the_columns_that_all_have(tmp_path):
    test = put(tmp_path, "t.jsonl", [{"text": "a", "kind": "HUM", "more": 1}])
    table = read(path=put(tmp_path, "a.csv", ROWS), test_path=test, label="kind")
    assert table.columns == {} and table.y.tolist() == [0, 1, 0, 1]


# a text file


def test_a_text_file_is_cut_into_samples_and_its_end_held_out(tmp_path):
    whole = "".join(chr(0x3B1 + number % 20) for number in range(95))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(whole.encode()))
    table = OFFERS["text_file"].make({"path": str(tmp_path / "a.txt.gz"), "characters": 10, "test": 0.2})
    assert "".join(sample.text for sample in table.texts) == whole
    assert [len(sample.text) for sample in table.texts] == [10] * 9 + [5]
    assert table.official["test"].tolist() == [8, 9] and table.official["train"].tolist() == list(range(8))
    assert table.texts[9].at == "a.txt.gz, characters 90 to 95"
    assert (table.y, table.classes, table.licence) == (None, 0, "not stated")
    assert not OFFERS["text_file"].make({"path": str(tmp_path / "a.txt.gz"), "test": 0}).official


def test_a_text_file_that_cannot_be_cut_is_refused(tmp_path):
    for name, data, what, where in (
        ("empty", b"", "is empty", "path"),
        ("latin", "Köln".encode("latin-1"), "byte 1 is not UTF-8", "path"),
        ("short", b"abc", "0 of 1 samples of 512 characters would be the test split", "test"),
        ("none", None, "no file", "path"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(MeshError, match=what) as error:
            OFFERS["text_file"].make({"path": str(tmp_path / name)})
        assert error.value.where == f"data.dataset.text_file.{where}"


# bad input


@pytest.mark.parametrize(
    ("row", "what", "config"),
    [
        ({"text": ""}, "column 'text', line 2: an empty text", {}),
        ({"text": " \n"}, "column 'text', line 2: an empty text", {}),
        ({"text": None}, "column 'text', line 2: an empty text", {}),
        ({"text": 5}, "column 'text', line 2: 5 is not a text", {}),
        ({"text": ["a"]}, r"column 'text', line 2: \['a'\] is not a text", {}),
        ({"text": "a\ud800"}, "column 'text', line 2: character 1 is half of a surrogate pair", {}),
        ({"pair": ""}, "column 'pair', line 2: an empty text", {"pair": "pair"}),
        ({"prompt": 1}, "column 'prompt', line 2: 1 is not a text", {"prompt": "prompt"}),
        ({"kind": "LOC"}, "column 'kind', line 2: 'LOC' is not a class of .*a.jsonl", {"label": "kind"}),
        ({"kind": None}, "column 'kind', line 2: '' is not a class", {"label": "kind"}),
        ({"spans": [[0, 9, "X"]]}, r"line 2: \[0, 9, 'X'\] is no span of a text of 3", {"spans": "spans"}),
        ({"spans": [[2, 2, "X"]]}, "is no span", {"spans": "spans"}),
        ({"spans": [[0, 1.5, "X"]]}, "is no span", {"spans": "spans"}),
        ({"spans": [{"start": 0, "end": 1}]}, "is no span", {"spans": "spans"}),
        ({"spans": [[0, 2, "X"], [1, 3, "X"]]}, "overlap", {"spans": "spans"}),
        ({"spans": [[0, 2, "Y"]]}, "line 2: 'Y' is no tag of .*a.jsonl", {"spans": "spans"}),
    ],
)
def test_a_bad_cell_is_named_by_file_column_and_line(tmp_path, row, what, config):
    good = {"text": "abc", "pair": "b", "prompt": "", "kind": "HUM", "turns": CHAT, "spans": [[0, 1, "X"]]}
    path, test = put(tmp_path, "a.jsonl", [good]), put(tmp_path, "t.jsonl", [good, good | row])
    refused(what, "test_path", path=path, test_path=test, **config)
    with pytest.raises(MeshError, match=r"t\.jsonl"):
        read(path=path, test_path=test, **config)


BAD_TURNS = [
    ("hi", "no JSON"),
    (3, "3 is not a list"),
    ([], "no turn of role 'assistant'"),
    (CHAT[:1], "no turn of role 'assistant'"),
    ([{"role": "user"}], "{'role': 'user'} is not a turn"),
    ([{"role": "user", "content": None}, CHAT[1]], "{'role': 'user', 'content': None} is not a turn"),
    ([*CHAT, "hi"], "'hi' is not a turn"),
    ([CHAT[0], {**CHAT[1], "content": ""}], "an empty text"),
    ([{**CHAT[0], "content": 7}, CHAT[1]], "7 is not a text"),
    ([{**CHAT[0], "content": [{"type": "image"}]}, CHAT[1]], "[{'type': 'image'}] is not a text"),
    (
        [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
        "{'id': '1'} is not a tool call",
    ),
    ([CHAT[0], {"role": "assistant", "content": None, "tool_calls": {"name": "f"}}], "{'name': 'f'} is not a list"),
]


def test_a_bad_conversation_says_why_and_costs_no_other(tmp_path):
    rows = [{"turns": CHAT}, *({"turns": turns} for turns, _ in BAD_TURNS)]
    good, *bad = read(path=put(tmp_path, "a.jsonl", rows), messages="turns").texts
    assert not good.fault and len(good.messages) == 2
    for line, (sample, (_, what)) in enumerate(zip(bad, BAD_TURNS, strict=True), 2):
        assert sample.fault.endswith(f"a.jsonl, column 'turns', line {line}: {what}") or "no JSON (" in sample.fault


def test_conversations_that_all_wait_for_an_answer_are_prompts(tmp_path):
    rows = [{"turns": CHAT[:1]}, {"turns": [*CHAT, {"role": "user", "content": "and?"}]}]
    samples = list(read(path=put(tmp_path, "a.jsonl", rows), messages="turns").texts)
    assert [(one.answered, one.answers(), one.fault) for one in samples] == [(False, "", ""), (True, "", "")]
    system = {"turns": [{"role": "system", "content": "be brief"}]}
    samples = list(read(path=put(tmp_path, "a.jsonl", [*rows, system]), messages="turns").texts)
    assert [bool(one.fault) for one in samples] == [False, False, True]
    samples = list(read(path=put(tmp_path, "a.jsonl", [*rows, {"turns": CHAT}]), messages="turns").texts)
    assert [bool(one.fault) for one in samples] == [True, False, False]


def test_prompts_may_lack_the_column_of_their_answers(tmp_path):
    prompts = put(tmp_path, "p.jsonl", [{"prompt": "1+1", "hint": "two"}])
    table = read(path=prompts, prompt="prompt")
    assert [(one.prompt, one.text, one.answered) for one in table.texts] == [("1+1", "", False)]
    assert table.columns == {"hint": ["two"]}
    assert table.notes == [f"{prompts} has no column 'text': its 1 samples are prompts alone"]
    test = put(tmp_path, "t.jsonl", [{"prompt": "2+2", "hint": "", "sum": "4"}])
    table = read(path=prompts, prompt="prompt", text="sum", test_path=test)
    assert [(one.prompt, one.text) for one in table.texts] == [("1+1", ""), ("2+2", "4")]
    refused("no column 'sum'", path=prompts, prompt="prompt", text="sum")
    refused("no column 'text'", path=prompts)
    refused("an empty text", path=put(tmp_path, "e.jsonl", [{"prompt": " "}]), prompt="prompt")


def test_a_file_of_bad_conversations_alone_is_refused(tmp_path):
    for turns, what in BAD_TURNS:
        if turns == CHAT[:1]:
            continue  # alone, it is a prompt
        refused(re.escape(f"line 1: {what}"), path=put(tmp_path, "a.jsonl", [{"turns": turns}]), messages="turns")


def test_all_that_a_turn_holds_is_kept(tmp_path):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "1"}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "name": "add"},
        {"role": "assistant", "content": "two", "reasoning_content": "so"},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    for name, more in (("tools", {}), ("functions", {"tools": "functions"})):
        path = put(tmp_path, "a.jsonl", [{"turns": turns, name: tools}, {"turns": CHAT, name: None}])
        one, two = read(path=path, messages="turns", **more).texts
        assert [turn_of(turn) for turn in one.messages] == [
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "name": "add"},
            {"role": "assistant", "content": "two", "reasoning_content": "so"},
        ]
        assert json.loads(one.tools) == tools and two.tools is None and not one.fault


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.csv", b"text,kind\n", "a header row and no data"),
        ("a.csv", b"text,kind\na,b\n,c\n", "column 'text', line 3: an empty text"),
        ("a.csv", b"text,kind\na\n", "line 2: 1 cells for 2 columns"),
        ("a.csv", b'text,kind\n"a,b\n', "line 2: unexpected end of data"),
        ("a.csv", "text\nKöln\n".encode("latin-1"), "byte 6 is not UTF-8"),
        ("a.csv", b"words\na\n", "no column 'text'"),
        ("a.csv.gz", b"text\na\n", "damaged gzip"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: "),
        ("a.jsonl", b"\n\n", "only blank lines"),
        ("a.jsonl", b"", "is empty"),
        ("a.parquet", b"PAR1 not so", r"a\.parquet: "),
        ("a.txt", b"a", "has an unknown format"),
        ("a.parquet.gz", b"a", "has an unknown format"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, data, what):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(data)
    refused(what, path=str(tmp_path / name))


def test_a_parquet_file_that_is_missing_empty_or_no_utf8_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    path = str(tmp_path / "a.parquet")
    refused("no file", path=path)
    files.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    refused("no rows", path=path)
    broken = pyarrow.array(["Köln".encode("latin-1")], pyarrow.binary()).view(pyarrow.string())
    files.write_table(pyarrow.table({"text": broken}), path)
    refused("can't decode byte 0xf6", path=path)
    files.write_table(pyarrow.table({"text": ["a", None]}), path)
    refused("column 'text', row 1: an empty text", path=path)


def test_a_folder_that_holds_no_data_set_is_refused(tmp_path):
    pytest.importorskip("datasets")
    refused(f"{tmp_path} is neither", path=str(tmp_path))


@pytest.mark.parametrize(("name", "extra"), [("a.parquet", "parquet"), ("folder", "datasets")])
def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch, name, extra):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(_parquet, "import_module", missing)
    (tmp_path / "folder").mkdir()
    with pytest.raises(MeshError, match=f"this needs {extra}") as error:
        read(path=str(tmp_path / name))
    assert error.value.instead == f'pip install "kdmesh[{extra}]"'


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({}, "needs `path` or `hub`"),
        ({"path": "a.csv", "hub": "a"}, "needs `path` or `hub`"),
        ({"hub": "a", "test_path": "b"}, "`hub` and `test_path` do not go together"),
        ({"path": "a.csv", "revision": "b"}, "`path` and `revision`"),
        ({"path": "a.csv", "messages": "m", "text": "t"}, "`messages` and `text`"),
        ({"path": "a.csv", "prompt": "p", "label": "l"}, "`prompt` and `label`"),
        ({"path": "a.csv", "spans": "s", "label": "l"}, "`spans` and `label`"),
        ({"path": "a.csv", "text": "a", "pair": "a"}, "one column has two meanings"),
        ({"path": "a.csv", "pair": "text"}, "one column has two meanings"),
        ({"path": "a.csv", "splits": {"dev": "a"}}, "splits"),
        ({"path": "a.csv", "values": ["v"], "label": "l"}, "`values` and `label`"),
        ({"path": "a.csv", "values": ["v"], "indicators": ["i"]}, "`values` and `indicators`"),
        ({"path": "a.csv", "indicators": ["i"], "labels": ["i"]}, "`indicators` and `labels`"),
        ({"path": "a.csv", "indicators": ["i"], "prompt": "p"}, "`prompt` and `indicators`"),
        ({"path": "a.csv", "indicators": ["i", "i"]}, "one column has two meanings"),
        ({"path": "a.csv", "values": ["text"]}, "one column has two meanings"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config, what):
    with pytest.raises(ValidationError, match=what):
        OFFERS["text"].config.model_validate(config)


# candidates to rank

LISTS = [
    {"q": "who", "c": ["a man", "a mesh"], "r": [1, 0], "topic": "x"},
    {"q": "where", "c": ["Bern"], "r": [2.5], "topic": "y"},
]
RATED = {"query": "q", "candidates": "c", "relevance": "r"}
TRIPLETS = {"query": "q", "positive": "p", "negative": "n"}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_query_has_candidates_and_how_relevant_each_is(tmp_path, name):
    rows = (
        LISTS if name != "a.csv" else [{**one, "c": json.dumps(one["c"]), "r": json.dumps(one["r"])} for one in LISTS]
    )
    table = read(path=put(tmp_path, name, rows), **RATED)
    assert [(one.text, one.candidates) for one in table.texts] == [("who", ("a man", "a mesh")), ("where", ("Bern",))]
    assert table.y.tolist() == [[1, 0], [2.5, -1]] and table.kind == "values" and not table.classes
    assert table.columns == {"topic": ["x", "y"]}


def test_positives_and_negatives_are_mixed_and_some_queries_have_none(tmp_path):
    rows = [{"q": str(n), "p": "yes", "n": ["no", "never"] if n % 2 else None} for n in range(12)]
    table = read(path=put(tmp_path, "a.jsonl", rows), **TRIPLETS)
    places = set()
    for sample, labels in zip(table.texts, table.y.tolist(), strict=True):
        assert [label for label in labels if label >= 0] == [float(one == "yes") for one in sample.candidates]
        assert sorted(sample.candidates) == (["never", "no", "yes"] if int(sample.text) % 2 else ["yes"])
        places.add(sample.candidates.index("yes"))
    assert len(places) > 1, "a place in the list tells nothing"


@pytest.mark.parametrize(
    ("row", "what", "columns"),
    [
        ({"q": "", "c": ["a"], "r": [1]}, "column 'q', line 1: an empty text", RATED),
        ({"q": None, "c": ["a"], "r": [1]}, "column 'q', line 1: an empty text", RATED),
        ({"q": "a", "c": {"d": "b"}, "r": [1]}, "column 'c', line 1: {'d': 'b'} is not a list", RATED),
        ({"q": "a", "c": "b", "r": [1]}, "column 'c', line 1: no JSON", RATED),
        ({"q": "a", "c": [], "r": []}, "column 'c', line 1: a query without a candidate", RATED),
        ({"q": "a", "c": ["b", 3], "r": [1, 0]}, "column 'c', line 1: 3 is not a text", RATED),
        ({"q": "a", "c": ["b", " "], "r": [1, 0]}, "column 'c', line 1: an empty text", RATED),
        ({"q": "a", "c": ["b"], "r": [1, 0]}, "column 'r', line 1: 2 values for 1 candidates", RATED),
        ({"q": "a", "c": ["b"], "r": 1}, "column 'r', line 1: 1 is not a list", RATED),
        ({"q": "a", "c": ["b", "c"], "r": [1, -1]}, "column 'r', line 1: -1 is not a relevance", RATED),
        ({"q": "a", "c": ["b"], "r": [True]}, "column 'r', line 1: True is not a relevance", RATED),
        ({"q": "a", "c": ["b"]}, "no column 'r'", RATED),
        ({"q": "a", "p": "", "n": []}, "column 'p', line 1: a query without a candidate", TRIPLETS),
        ({"q": "a", "p": 4, "n": "b"}, "column 'p', line 1: 4 is not a text", TRIPLETS),
    ],
)
def test_what_is_no_list_is_refused_with_its_place(tmp_path, row, what, columns):
    refused(re.escape(what), path=put(tmp_path, "a.jsonl", [row]), **columns)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"query": "q"}, "`query` goes with `candidates` and `relevance`"),
        ({"query": "q", "candidates": "c"}, "`query` goes with"),
        ({"query": "q", "positive": "p", "relevance": "r"}, "`query` goes with"),
        ({"candidates": "c", "relevance": "r"}, "`candidates` goes with `query`"),
        ({**RATED, "label": "l"}, "`query` and `label` do not go together"),
        ({**RATED, "text": "t"}, "`query` and `text` do not go together"),
        ({**RATED, "relevance": "c"}, "one column has two meanings"),
    ],
)
def test_settings_of_lists_that_contradict_each_other_are_refused(config, what):
    with pytest.raises(ValidationError, match=re.escape(what)):
        OFFERS["text"].config.model_validate({"path": "x.jsonl", **config})
