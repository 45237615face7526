"""Texts that are read when a batch asks for them: the bits of those in memory, whatever file they are in."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kdmesh
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.loader import ShardView
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.private import own_part
from kdmesh.streams.stream import Stream
from kdmesh.streams.texts import HIDDEN, Sample, Texts, UnreadSamples, concatenate
from kdmesh.streams.tokens import Collected, Encoded, Row, side_by_side
from kdmesh.tables.unread_files import LineRows
from kdmesh.text import prompts, tokenizers
from kdmesh.text.encoder import CHARACTERS, Encoder, _chunks
from kdmesh.text.settings import TokenizerConfig

OFFER = next(offer for offer in DATASETS if offer.name == "text")
ROWS = [
    {"text": f'é word{i}\n"{"x" * (i % 7)}', "label": "ab"[i % 2], "site": f"s{i % 3}", "n": str(i), "pair": f"p{i}"}
    for i in range(40)
]
CHATS = [
    {"messages": [{"role": "user", "content": f"what is {i}"}, {"role": "assistant", "content": "yes" * (i % 4 + 1)}]}
    for i in range(30)
]
KINDS = [".jsonl", ".csv", ".tsv", ".parquet", "folder"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Where `datasets` makes Arrow of Parquet."""
    from datasets import config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write(root, kind, rows, name="a"):
    path = root / f"{name}{kind}"
    if kind == ".jsonl":
        path.write_text("\ufeff" + "\n\n".join(json.dumps(one, ensure_ascii=False) for one in rows), encoding="utf-8")
    elif kind in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if kind == ".csv" else "\t")
            writer.writeheader()
            for row in rows:
                file.write("\r\n" * (int(row.get("n", 0)) % 5 == 0))
                writer.writerow(row)
    else:
        from datasets import Dataset, DatasetDict, disable_progress_bars

        disable_progress_bars()
        made = Dataset.from_list(rows)
        if kind == ".parquet":
            made.to_parquet(path)
        else:
            DatasetDict(train=made, test=made.select(range(5))).save_to_disk(path)
    return str(path)


def both(settings):
    memory, lazy = (OFFER.make({**settings, "lazy": one}) for one in (False, True))
    assert lazy.x.unread and lazy.unread and not memory.x.unread and not memory.unread
    return memory, lazy


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_later_is_what_is_in_memory(tmp_path, kind):
    settings = {"path": write(tmp_path, kind, ROWS), "label": "label", "pair": "pair"}
    if kind != "folder":
        settings["test_path"] = write(tmp_path, kind, ROWS[:5], "t")
    memory, lazy = both(settings)
    assert list(lazy.x) == list(memory.x) and len(lazy) == len(memory) == 45
    assert lazy.fingerprint == memory.fingerprint and torch.equal(lazy.keys, memory.keys)
    assert torch.equal(lazy.y, memory.y) and lazy.labels == memory.labels == ["a", "b"]
    assert torch.equal(lazy.x.sizes(), memory.x.sizes()) and lazy.x.learned() == memory.x.learned()
    assert lazy.reads == memory.reads and lazy.notes == memory.notes
    assert {name: list(own) for name, own in lazy.columns.items()} == memory.columns
    assert lazy.columns["site"][44] == "s1" and lazy.columns["n"][-1] == "4" and lazy.columns["n"][1:3] == ["1", "2"]
    at = torch.tensor([44, 5, 5, 0])
    assert list(lazy.x[at]) == list(memory.x[at]) and lazy.x[43] == memory.x[43]
    assert list(lazy.x[at][1:3]) == list(memory.x[torch.tensor([5, 5])]) and list(lazy.x[3:5]) == list(memory.x[3:5])
    assert list(pickle.loads(pickle.dumps(lazy.x[at]))) == list(memory.x[at])
    more = Texts([Sample("more", pair="of them")])
    assert list(concatenate([lazy.x, more]))[43:] == [*memory.x[43:], *more]


@pytest.mark.parametrize("kind", [".jsonl", "folder"])
def test_conversations_and_rows_without_labels(tmp_path, kind):
    chats = [*CHATS, {"messages": [{"role": "user", "content": "and this?"}]}]
    memory, lazy = both({"path": write(tmp_path, kind, chats), "messages": "messages"})
    assert list(lazy.x) == list(memory.x) and lazy.x[30].fault and lazy.fingerprint == memory.fingerprint
    prompts = [{"messages": one["messages"][:1]} for one in chats]
    memory, lazy = both({"path": write(tmp_path, kind, prompts, "p"), "messages": "messages"})
    assert list(lazy.x) == list(memory.x) and not any(one.fault for one in lazy.x)
    faulty = [{"messages": [{"role": "assistant"}]}, *({"messages": []} for _ in range(3))]
    if kind == ".jsonl":
        for later in (False, True):
            with pytest.raises(MeshError, match=r"line 1: .* is not a turn"):
                OFFER.make({"path": write(tmp_path, kind, faulty, "f"), "messages": "messages", "lazy": later})
    if kind == "folder":  # whose rows of test would have none either
        return
    blank = [{**one, "label": "" if number % 4 else one["label"]} for number, one in enumerate(ROWS)]
    memory, lazy = both({"path": write(tmp_path, kind, blank, "b"), "label": "label", "text": "text"})
    assert list(lazy.x) == list(memory.x) and torch.equal(lazy.y, memory.y) and "30 of 40" in lazy.notes[0]
    assert {name: rows.tolist() for name, rows in lazy.official.items()} == {
        name: rows.tolist() for name, rows in memory.official.items()
    }


def test_what_is_wrong_is_told_as_of_files_in_memory(tmp_path):
    lines = [json.dumps(one) for one in ROWS]
    for name, text, what in (
        ("a.jsonl", "\n".join([*lines, '{"text": 1}']), "line 41: keys differ"),
        ("b.jsonl", "\n".join([*lines[:2], "{", *lines]), "line 3: "),
        ("c.jsonl", "\n\n", "only blank lines"),
        ("d.jsonl", "\n".join(json.dumps({**one, "text": "" if one["n"] == "7" else "x"}) for one in ROWS),
         "column 'text', line 8: an empty text"),
        ("e.csv", "text,label\na,b\nc\n", "line 3: 1 cells for 2 columns"),
        ("f.csv", 'text,label\na,b\n"c\n', "line "),
        ("g.csv", "text,text\na,b\n", "header row"),
        ("h.csv", "text,label\n", "a header row and no data"),
        ("i.jsonl", "\n".join(json.dumps({**one, "label": ""}) for one in ROWS), "no row has a label"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
        said = []
        for lazy in (False, True):
            with pytest.raises(MeshError, match=what) as error:
                OFFER.make({"path": str(tmp_path / name), "label": "label", "lazy": lazy})
            said.append((error.value.what, error.value.where))
        assert said[0] == said[1]
    (tmp_path / "j.jsonl.gz").write_bytes(b"x")
    with pytest.raises(MeshError, match="is packed, and is read whole"):
        OFFER.make({"path": str(tmp_path / "j.jsonl.gz"), "lazy": True})
    (tmp_path / "k.csv").write_text("text,label\na,b\n", encoding="utf-16")
    with pytest.raises(MeshError, match="is in utf-16"):
        OFFER.make({"path": str(tmp_path / "k.csv"), "encoding": "utf-16", "lazy": True})
    with pytest.raises(ValueError, match="`query` and `lazy: true`"):
        OFFER.make({"path": "l.jsonl", "query": "q", "candidates": "c", "relevance": "r", "lazy": True})


def test_utf_8_may_be_named_with_its_mark(tmp_path):
    path = write(tmp_path, ".csv", ROWS)
    memory, lazy = both({"path": path, "label": "label", "encoding": "utf-8-sig"})
    assert list(lazy.x) == list(memory.x) == list(OFFER.make({"path": path, "label": "label"}).x)


def test_by_default_what_is_large_is_read_later(tmp_path, monkeypatch):
    settings = {"path": write(tmp_path, ".jsonl", ROWS), "label": "label"}
    assert not OFFER.make(settings).x.unread
    monkeypatch.setattr("kdmesh.streams.host_memory.memory", lambda: 30_000)
    assert OFFER.make(settings).x.unread
    monkeypatch.setattr("kdmesh.streams.host_memory.memory", lambda: 1000)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(Path(settings["path"]).read_bytes()))
    assert not OFFER.make({**settings, "path": str(tmp_path / "b.jsonl.gz")}).x.unread, "what is packed is read whole"


def test_samples_of_others_are_never_read(tmp_path):
    memory, lazy = both({"path": write(tmp_path, ".jsonl", ROWS), "label": "label"})
    one, two = torch.arange(25), torch.arange(25, 40)
    streams = {"own": Stream("own", torch.arange(40), True, private=True, shards={"a": one, "b": two})}
    found, held = own_part(lazy, streams, ["a"]), own_part(memory, streams, ["a"])
    assert list(found.x) == list(held.x) and found.x[30] == HIDDEN and list(found.columns["n"]) == held.columns["n"]
    assert torch.equal(found.x.hidden(), held.x.hidden()) and found.x.hidden().sum() == 15
    assert found.x[torch.tensor([24, 39])].hidden().tolist() == [False, True]


def test_cells_of_others_are_not_sent(tmp_path):
    """Labels are in memory where a table is read; a host is sent those of its own agents alone, as labels."""
    rows = [{"text": f"word {i}", "label": f"of {'a' if i < 10 else 'b'}", "site": f"site {i}"} for i in range(40)]
    one, two = torch.arange(10), torch.arange(10, 40)
    streams = {"own": Stream("own", torch.arange(40), True, private=True, shards={"a": one, "b": two})}
    for kind in (".jsonl", ".csv"):
        table = OFFER.make({"path": write(tmp_path, kind, rows), "label": "label", "lazy": True})
        sent = pickle.dumps(replace(own_part(table, streams, ["a"]), labels=[]))
        assert b"site 9" in sent and b"site 39" not in sent and b"of b" not in sent
        assert [one.text for one in pickle.loads(sent).x[:10]] == [f"word {i}" for i in range(10)]


def test_a_column_is_read_ahead_where_it_is_gone_through(tmp_path):
    rows = [{"text": f"word {i}", "site": f"s{i}"} for i in range(300)]
    column = OFFER.make({"path": write(tmp_path, ".jsonl", rows), "text": "text", "lazy": True}).columns["site"]
    asked = []

    class Counted:
        def __init__(self, cells):
            self.cells = cells

        def __len__(self):
            return len(self.cells)

        def __getitem__(self, at):
            asked.append(len(range(*at.indices(len(self)))))
            return self.cells[at]

    column._parts = [Counted(part) for part in column._parts]
    drawn = torch.randperm(300, generator=torch.Generator().manual_seed(0)).tolist()
    assert [column[row] for row in drawn] == [f"s{row}" for row in drawn]
    assert sum(asked) <= 600, "each by itself, but for rows that happen to follow"
    asked.clear()
    assert [column[row] for row in range(300)] == [f"s{i}" for i in range(300)] and len(asked) == 2


def test_samples_are_changed_when_they_are_read(tmp_path):
    """As for who only writes: to that one all samples are answers."""
    memory, lazy = both({"path": write(tmp_path, ".jsonl", ROWS), "label": "label"})
    blank = torch.arange(40) > 30
    found = [
        texts.blanked(blank)
        .changed(lambda one: one if one == HIDDEN else replace(one, prompt=one.text))
        .changed(lambda one: one if one == HIDDEN else replace(one, text=f"{one.prompt}!"))
        for texts in (memory.x, lazy.x)
    ]
    assert list(found[0]) == list(found[1]) and found[1][3].text == f"{ROWS[3]['text']}!" and found[1][35] == HIDDEN
    assert list(found[1][torch.tensor([5, 2])]) == [found[0][5], found[0][2]] and lazy.x[3] == memory.x[3]


def rows_of_tokens(listed):
    made = [Row(list(range(i % 5 + 1)), [0], [i], [(i, i + 2)]) for i in range(20)]
    return [side_by_side(one, one) for one in made] if listed else made


@pytest.mark.parametrize("listed", [False, True])
def test_tokens_in_files_are_those_in_memory(listed):
    rows = rows_of_tokens(listed)
    memory, mapped = Encoded.of(rows, 9), Collected(mapped=True)
    for start in range(0, 20, 6):
        mapped.add(rows[start : start + 6])
    found = mapped.encoded(9).to(torch.device("cpu"))
    assert found.mapped and not memory.mapped and list(found.samples()) == list(memory.samples()) == rows
    at = torch.tensor([3, 19, 0, 4])
    for one, other in ((found, memory), (found.select(at), memory.select(at))):
        for name in ("counts", "lengths", "targets", "shapes", "characters"):
            assert torch.equal(torch.as_tensor(getattr(one, name)), torch.as_tensor(getattr(other, name))), name
        assert list(one.contents()) == list(other.contents()) and torch.equal(one.endings(), other.endings())
        assert torch.equal(one.whole().ids, other.whole().ids)
        for (places, tokens), (own, held) in zip(one.parts(4), other.parts(4), strict=True):
            assert torch.equal(places, own) and torch.equal(tokens.ids, held.ids)
    assert torch.equal(found.unit_rows(at), memory.unit_rows(at))


def test_long_texts_are_tokenised_few_at_a_time():
    samples = [Sample("x" * (CHARACTERS // 4 + 1))] * 7 + [Sample("y")] * 2500
    parts = list(_chunks(Texts(samples)))
    assert [one for part in parts for one in part] == samples and list(map(len, parts)) == [4, 1024, 1024, 455]


TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BERT = {"hf": {"config": {"model_type": "bert", **TINY}, "tokenizer": {"characters": {}}}}
LLAMA = {
    "hf": {
        "config": {"model_type": "llama", "num_key_value_heads": 1, "max_position_embeddings": 64, **TINY},
        "tokenizer": {"bpe": {"vocabulary": 280}},
    }
}
MESHES = {
    "classes": {
        "data": {"label": "label"},
        "agents": {"t": {"model": BERT}, "s": {"model": BERT}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
    },
    "language": {
        "task": "language_modelling",
        "data": {"text": "text"},
        "agents": {"t": {"model": LLAMA}, "s": {"model": LLAMA}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "text": {"max_length": 12, "bucket": True},
    },
    "told": {
        "task": "language_modelling",
        "data": {"text": "text"},
        "agents": {"t": {"model": LLAMA, "view": {"prompt": "{label}: "}}, "s": {"model": LLAMA}},
        "connect": [{"ensemble": {"teachers": ["t"], "student": "s"}}],
        "text": {"max_length": 32},
    },
}


@pytest.mark.parametrize("name", MESHES)
def test_a_run_has_the_same_bits(tmp_path, monkeypatch, name):
    path, found = write(tmp_path, ".jsonl", [{"text": one["text"], "label": one["label"]} for one in ROWS]), []
    inner, told = prompts.told, []
    monkeypatch.setattr(prompts, "told", lambda *given: told.append(inner(*given)) or told[-1])
    for lazy in (False, True):
        given = {**MESHES[name], "train": {"epochs": 2, "batch_size": 8}}
        data = {"dataset": {"text": {"path": path, **given["data"], "lazy": lazy}}, "validation": 8, "test": 8}
        result = kdmesh.Mesh(name="m", **{**given, "data": data}).run(backend="inline", store=tmp_path / "store")
        found.append({one: (made.weights_sha256, made.metrics) for one, made in result.agents.items()})
        assert bool(result.summary["store"]["agents"]["t"]["found"]) is lazy, "the store knows its samples again"
        assert bool(told) is (name == "told") and all(one.mapped is lazy for one in told)
        told.clear()
    assert found[0] == found[1]


def test_what_a_step_counts_is_known_without_all_samples(tmp_path, monkeypatch):
    data = {"dataset": {"text": {"path": write(tmp_path, ".jsonl", ROWS), "text": "text", "lazy": True}}}
    plan = make_plan(parse({**MESHES["language"], "data": data, "connect": [], "agents": {"s": {"model": LLAMA}}}),
                     registry())  # fmt: skip
    found = examine(plan)
    view = ShardView(found.reading, found.streams["train"], "s", "", 0, torch.device("cpu"))
    own = [len(view.batch(step, 5, False).y) for step in range(4)]
    monkeypatch.setattr(Encoded, "counts", property(lambda self: pytest.fail("counts all samples in a step")))
    assert [view.count(step, 5, False) for step in range(4)] == own


def test_prompts_that_are_asked_are_not_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "KEPT", 4)
    rows = [{"text": f"{i}", "prompt": f"word {i}"} for i in range(12)]
    table = OFFER.make({"path": write(tmp_path, ".jsonl", rows), "prompt": "prompt", "lazy": True})
    made = tokenizers.load(TokenizerConfig(bpe={"vocabulary": 280}), lambda: ["word 0123456789"])
    encoder = Encoder(made, "language_modelling", max_length=32)
    asking = prompts.Asking(encoder, table, None, "s")
    first = [asking(row) for row in range(12)]
    assert [asking(row) for row in range(12)] == first and len(asking._known) <= 4


def test_texts_are_gone_through_once_for_each_purpose(tmp_path, monkeypatch):
    """To find rows, to look at samples, to make a tokenizer, to tokenise, to hash: and no more, for two agents."""
    rows = [{"text": f"{number} {'word ' * (number % 9)}", "label": "ab"[number % 2]} for number in range(1000)]
    counts = dict.fromkeys(("rows", "samples", "encode", "make"), 0)

    def counted(owner, name, key, each):
        true = getattr(owner, name)

        def told(*given, **more):
            counts[key] += each(given)
            return true(*given, **more)

        monkeypatch.setattr(owner, name, told)

    counted(LineRows, "read", "rows", lambda given: len(given[1]))
    counted(UnreadSamples, "read", "samples", lambda given: len(given[1]))
    counted(Encoder, "encode", "encode", lambda given: given[1].unread)
    counted(tokenizers, "make", "make", lambda given: 1)
    data = {"dataset": {"text": {"path": write(tmp_path, ".jsonl", rows), "label": "label", "lazy": True}}}
    given = {**MESHES["classes"], "data": {**data, "validation": 100, "test": 100}, "train": {"steps": 1}}
    kdmesh.Mesh(name="m", **given).run(backend="inline", store="off")
    assert counts["encode"] == counts["make"] == 1
    train = 800  # of which the first part is looked at, and then all
    purposes = 2 * len(rows) + 2 * train
    assert purposes <= counts["samples"] < purposes + len(rows) // 2, "a few for a trial"
    assert counts["rows"] == counts["samples"] + len(rows)


RESIDENT = """
import sys
from pathlib import Path

import torch

from kdmesh.builtin.datasets.text import text
from kdmesh.streams.tokens import Collected, Row


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


table = text(sys.argv[1], label="label", lazy=True)
list(table.x[:64])
before = anonymous()
table.fingerprint, table.keys
collected = Collected(table.x.unread)
for start in range(0, len(table), 1024):
    collected.add([Row(list(one.text.encode()[:4000])) for one in table.x[start : start + 1024]])
encoded = collected.encoded(0)
for batch in torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).split(64):
    assert len(encoded.batch(batch)) == len(batch)
print(4 * int(encoded.lengths.sum()) / 1e6, anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="its figures are Linux's")
def test_memory_does_not_grow_with_the_texts(tmp_path):
    line = json.dumps({"text": "word " * 3000, "label": "a"})
    (tmp_path / "a.jsonl").write_text((line + "\n" + line.replace('"a"', '"b"') + "\n") * 10_000)
    run = [sys.executable, "-c", RESIDENT, str(tmp_path / "a.jsonl")]
    size, grown = map(float, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert size > 300 and grown < 150, (size, grown)  # MB
