"""What a teacher has learned is known by the samples themselves, whatever file, order, part or split they come in."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.hosts.source import Source
from kdmesh.spec import DataSpec
from kdmesh.streams import contents
from kdmesh.streams.contents import Keys, keys
from kdmesh.streams.learned import in_header, overlap, record

MODEL = {"mlp": {"hidden": [8]}}
TRAIN = {"steps": 2, "batch_size": 16}


def points(n: int = 200, seed: int = 0):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def some(pair, rows):
    return pair[0][rows], pair[1][rows]


def both(*pairs):
    return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))


def mesh(data=None, splits: dict | None = None, **fields) -> kdmesh.Mesh:
    return kdmesh.Mesh(data=kdmesh.data(data or points()), splits=splits or {}, train=TRAIN, **fields)


def taught(model, data=None, splits=None, **agent) -> kdmesh.Mesh:
    made = mesh(data, splits)
    made.agent("t", model, update="frozen", **agent)
    made.agent("s", MODEL)
    made.connect("ensemble", teachers="t", student="s", objective="kl")
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A teacher of 200 points: its weights' file, and the keys of what taught it and of what it was measured on."""
    made = mesh()
    made.agent("t", MODEL)
    made.flow("labels", "t", objective="ce")
    result = made.run(backend="inline", out=tmp_path_factory.mktemp("runs"))
    table, streams = Source(made.table).load(made.plan())
    known = {name: table.keys[stream.rows] for name, stream in streams.items()}
    return str(result.folder / "agents" / "t" / "model.safetensors"), known, result


def marks(made: kdmesh.Mesh) -> list[str]:
    return examine(made.plan(), made._modules, made.table).marks


def refused(made: kdmesh.Mesh) -> tuple[int, str, MeshError]:
    """How many samples of which split a mesh is refused for."""
    with pytest.raises(MeshError, match="were used to train these weights or their teachers") as error:
        marks(made)
    words = str(error.value).split()
    return int(words[words.index("of") - 1].replace(",", "")), words[words.index("samples") - 1], error.value


OTHER = points(200, seed=5)
AGAIN = {
    "turned": lambda: some(points(), torch.arange(200).flip(0)),
    "half": lambda: some(points(), torch.arange(100)),
    "a few": lambda: some(points(), torch.arange(40)),
    "among others": lambda: both(OTHER, points()),
    "before others": lambda: both(points(), points(2000, seed=6)),
    "other labels": lambda: (points()[0], (points()[1] + 1) % 3),
    "mixed": lambda: both(some(OTHER, torch.arange(50)), some(points(), torch.arange(0, 200, 3))),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("way", AGAIN)
def test_a_teachers_samples_are_known_again_in_any_file(trained, way, seed):
    weights, known, _ = trained
    made = taught(MODEL, AGAIN[way](), {"seed": seed}, weights=weights)
    table, streams = Source(made.table).load(made.plan())
    learned = torch.cat([known["train"], known["validation"]])
    expected = int(torch.isin(table.keys[streams["test"].rows], learned).sum())
    if not expected:  # as it happens, the split of other labels at the teacher's own seed
        assert marks(made) == []
        return
    count, split, error = refused(made)
    assert (count, split) == (expected, "test") and count > 0
    assert error.where == "agents.t.weights" and "shares none with it" in error.instead


def test_the_test_samples_of_a_teacher_may_be_tested_again(trained):
    weights, known, _ = trained
    x, y = points()
    held = torch.isin(keys(x), known["test"])
    data = kdmesh.data(some((x, y), ~held), test=some((x, y), held.nonzero().flatten().flip(0)))
    made = kdmesh.Mesh(data=data, splits={"validation": 0}, train=TRAIN)
    made.agent("t", MODEL, update="frozen", weights=weights)
    made.agent("s", MODEL)
    made.connect("ensemble", teachers="t", student="s", objective="kl")
    assert marks(made) == []
    assert marks(taught(MODEL, OTHER, {"seed": 3}, weights=weights)) == []


def test_validation_must_not_have_taught_but_may_have_chosen(trained):
    weights, known, _ = trained
    x, y = points()

    def given(name: str):
        part = torch.isin(keys(x), known[name])
        made = taught(MODEL, weights=weights)
        made.table = kdmesh.data(OTHER, validation=some((x, y), part), test=points(30, seed=9))
        return made

    assert refused(given("train"))[:2] == (len(known["train"]), "validation")
    assert marks(given("validation")) == marks(given("test")) == []


def test_repeats_among_the_data_themselves_do_not_refuse_them():
    """A sixth of the samples stands twice in the file, perhaps one in train and one in test: that is the data's own."""
    x, y = points()
    twice = (torch.cat([x, x[:30]]), torch.cat([y, y[:30]]))
    made = mesh(twice)
    made.agent("t", MODEL)
    made.flow("labels", "t", objective="ce")
    module = made.run(backend="inline")["t"].module
    assert any("test samples have the values of one that teaches" in text for text in marks(taught(module, twice)))
    turned = some(twice, torch.arange(230).flip(0))
    table, streams = Source(kdmesh.data(turned)).load(taught(module, turned).plan())
    learned = table.keys[torch.cat([streams["train"].rows, streams["validation"].rows])]
    own = Source(made.table).load(made.plan())[1]
    before = made.table.keys[torch.cat([own["train"].rows, own["validation"].rows])]
    test = table.keys[streams["test"].rows]
    count = int((torch.isin(test, before) & ~torch.isin(test, learned)).sum())
    assert refused(taught(module, turned))[0] == count > 0  # beside those, it is the teacher's doing


def test_a_few_that_figures_cannot_show_are_a_mark(trained):
    weights, known, _ = trained
    x, y = points()
    part = torch.isin(keys(x), known["train"]).nonzero().flatten()

    def given(count: int):
        made = taught(MODEL, weights=weights)
        made.table = kdmesh.data(OTHER, test=both(points(1600 - count, seed=9), some((x, y), part[:count])))
        return made

    (text,) = marks(given(4))  # a tenth of the root of 1600
    assert text.startswith("4 of the 1,600 test samples have the values of samples that the weights of t")
    assert refused(given(5))[:2] == (5, "test")


def test_coarse_data_that_repeat_by_chance_are_a_mark():
    """Of three columns with three values each, other people are often alike."""

    def people(seed: int):
        x = torch.randint(0, 3, (300, 4), generator=torch.Generator().manual_seed(seed)).float()
        return x, x[:, 0].long()

    made = mesh(people(0))
    made.agent("t", MODEL)
    made.flow("labels", "t", objective="ce")
    module = made.run(backend="inline")["t"].module
    found = marks(taught(module, people(1)))
    assert all("of one that teaches" in text or "no more than data repeat by chance" in text for text in found)
    assert any("data repeat by chance" in text for text in found)


@pytest.mark.parametrize("way", ["loaded", "part", "wrapped", "copied", "half", "result", "exit"])
def test_modules_carry_what_they_have_learned_into_another(trained, way):
    result = trained[2]
    loaded = kdmesh.load(result.folder / "agents" / "t")
    module = {
        "loaded": lambda: loaded,
        "part": lambda: torch.nn.Sequential(loaded.layers, torch.nn.Linear(8, 3)),
        "wrapped": lambda: torch.nn.Sequential(torch.nn.Identity(), loaded),
        "copied": lambda: copy.deepcopy(loaded),
        "half": lambda: copy.deepcopy(loaded).double().float(),
        "result": lambda: result["t"].module,
        "exit": lambda: torch.nn.Sequential(copy.deepcopy(result["t"].module)),
    }[way]()
    count, _, error = refused(taught(module, AGAIN["turned"]()))
    assert count > 20 and error.where == "agents.t"


def test_a_student_records_its_teachers_and_its_own_samples_once_each(trained, tmp_path):
    weights, known, _ = trained
    made = taught(MODEL, OTHER, {"seed": 2}, weights=weights)
    result = made.run(backend="inline", out=tmp_path)
    folder = result.folder / "agents" / "s"
    own, theirs = in_header(folder / "model.safetensors")
    table, streams = Source(made.table).load(made.plan())
    assert Keys(own["seen"]["taught"]).have(table.keys).nonzero().flatten().tolist() == streams["train"].rows.tolist()
    assert Keys(theirs["seen"]["taught"]).have(known["train"]).all()
    assert not Keys(theirs["seen"]["taught"]).have(torch.cat([known["test"], known["validation"]])).any()
    shown = json.loads((folder / "config.json").read_text())["learned_from"]
    assert [one["seen"]["taught"] for one in shown] == [{"count": len(streams["train"].rows)}, {"count": 144}]
    assert refused(taught(kdmesh.load(folder), AGAIN["half"]()))[0] > 5


def test_each_party_records_its_shard_and_what_reached_it(tmp_path):
    made = mesh(splits={"transfer": 0.2}, streams={"own": {"of": "train", "shards": {"of": ["a", "b"], "by": "iid"}}})
    for name in ("a", "b", "s"):
        made.agent(name, MODEL)
    made.flow("labels", ["a", "b"], stream="own", objective="ce")
    made.flow("a", "s", stream="transfer", objective="kl")
    found = examine(made.plan(), {}, made.table)
    expected = {name: set(found.streams["own"].shards[name].tolist()) for name in ("a", "b")}
    expected["s"] = {*expected["a"], *found.streams["transfer"].rows.tolist()}
    for name, rows in expected.items():
        (one,) = found.learned[name]
        assert set(Keys(one["seen"]["taught"]).have(found.table.keys).nonzero().flatten().tolist()) == rows


def test_nothing_is_told_of_private_samples(tmp_path):
    made = mesh(
        splits={"transfer": 0.2, "validation": 0},
        streams={"own": {"of": "train", "private": True, "shards": {"of": ["a", "b"], "by": "iid"}}},
        placement={"one": ["a"], "two": ["b"]},
    )
    for name in ("a", "b"):
        made.agent(name, MODEL)
    made.flow("labels", ["a", "b"], stream="own", objective="ce")
    result = made.run(backend="inline", out=tmp_path)
    table, streams = Source(made.table).load(made.plan())
    weights = result.folder / "agents" / "a" / "model.safetensors"
    (one,) = in_header(weights)
    assert one["seen"]["private"] == len(streams["own"].shards["a"])
    assert not Keys(one["seen"]["taught"]).have(table.keys).any()
    for file in result.folder.rglob("*"):  # nor anywhere else
        if file.is_file():
            content = file.read_bytes()
            assert all(key.numpy().tobytes() not in content for key in table.keys[streams["own"].rows])
    (text,) = marks(taught(MODEL, AGAIN["turned"](), weights=str(weights)))
    assert f"{one['seen']['private']} samples were private, so that nothing is recorded of them" in text
    with pytest.raises(MeshError, match="split in another way"):  # the data as a whole are known
        marks(taught(MODEL, splits={"seed": 1, "transfer": 0.2, "validation": 0}, weights=str(weights)))


def test_a_record_of_many_samples_finds_them_by_a_part(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MOST", 300)
    data = points(2000)
    made = mesh(data)
    made.agent("t", MODEL)
    made.flow("labels", "t", objective="ce")
    result = made.run(backend="inline", out=tmp_path)
    weights = result.folder / "agents" / "t" / "model.safetensors"
    assert len(in_header(weights)[0]["seen"]["taught"]["keys"]) == 300 * 8 * 4 // 3
    turned = some(data, torch.arange(2000).flip(0))
    again = taught(MODEL, turned, weights=str(weights))
    count, _, _ = refused(again)
    assert 240 < count < 400  # 316 of 400 are due
    assert marks(taught(MODEL, points(2000, seed=8), weights=str(weights))) == []


def old(weights: str, to, change) -> str:
    """The weights as a version without keys wrote them, or with another record."""
    with safe_open(weights, "pt") as file:
        records = json.loads(file.metadata()["learned_from"])
    save_file(load_file(weights), to, {"learned_from": json.dumps([change(one) for one in records])})
    return str(to)


def test_records_without_samples_tell_of_the_same_file_and_else_say_that_they_do_not(trained, tmp_path):
    def change(one):
        return {name: value for name, value in one.items() if name != "seen"}

    weights = old(trained[0], tmp_path / "old.safetensors", change)
    with pytest.raises(MeshError, match="split in another way"):
        marks(taught(MODEL, splits={"seed": 1}, weights=weights))
    assert marks(taught(MODEL, weights=weights)) == []
    (text,) = marks(taught(MODEL, AGAIN["turned"](), weights=weights))
    assert "is not known" in text and "the samples are not recorded one by one" in text


@pytest.mark.parametrize("seen", [3, {}, {"taught": 3}, {"taught": {"count": 1, "keys": "!"}}])
def test_a_record_with_broken_keys_is_not_trusted(trained, tmp_path, seen):
    weights = old(trained[0], tmp_path / "broken.safetensors", lambda one: {**one, "seen": seen})
    (text,) = marks(taught(MODEL, AGAIN["turned"](), {"seed": 1}, weights=weights))
    assert "what the weights of t were trained on is not known" in text


def test_samples_that_differ_at_every_reading_are_not_recorded_and_that_is_said(trained):
    made = taught(MODEL, AGAIN["turned"](), weights=trained[0])
    made.table.deterministic = False
    assert any("samples have other values here at every reading" in text for text in marks(made))
    table = examine(made.plan(), {}, made.table)
    assert "seen" not in table.learned["s"][0]


def ternary(n: int, seed: int):
    x = torch.randint(0, 3, (n, 9), generator=torch.Generator().manual_seed(seed)).float()
    return x, x[:, 0].long()


def leak_of(before: dict, data):
    made = mesh(data)
    made.flow("labels", made.agent("s", MODEL), objective="ce")
    return overlap(before, made.table, Source(made.table).load(made.plan())[1])


def test_fresh_data_of_few_values_are_not_refused_for_what_chance_repeats():
    """Of 3^9 possible rows two independent draws share some, though neither has one twice; copies are many more."""
    first = ternary(300, 0)
    before = record(kdmesh.data(first), DataSpec.model_validate("python:given"), torch.arange(300))
    found = [leak_of(before, ternary(300, seed)) for seed in range(1, 13)]
    assert sum(one is not None for one in found) > 3
    assert sum(one is not None and not one.few for one in found) <= 1
    copied = leak_of(before, both(ternary(100, 1), some(first, slice(0, 200))))
    assert copied is not None and not copied.few


def test_a_row_that_stands_often_lets_no_copies_pass():
    x, y = points()
    x[:60] = 0
    before = record(kdmesh.data((x, y)), DataSpec.model_validate("python:given"), torch.arange(200))
    copied = leak_of(before, both((x[:60], y[:60]), points(90, 5), (x[150:], y[150:])))
    assert copied is not None and not copied.few


def test_data_that_stand_for_a_part_of_what_was_learned_repeat_more_of_it_by_chance():
    """8,000 of 3^9 rows were learned, and 300 stand here: what chance repeats goes by what was learned."""
    first = ternary(8000, 0)
    before = record(kdmesh.data(first), DataSpec.model_validate("python:given"), torch.arange(8000))
    found = [leak_of(before, ternary(300, seed)) for seed in range(1, 9)]
    assert all(one is not None for one in found)
    assert sum(not one.few for one in found) <= 1
    copied = leak_of(before, some(first, slice(0, 300)))
    assert copied is not None and not copied.few


def lists(queries: torch.Tensor, seed: int):
    """A list of four candidates for each query, of which the one that is most like it is relevant."""
    candidates = torch.randn(len(queries), 4, 8, generator=torch.Generator().manual_seed(seed))
    best = (candidates * queries[:, None]).sum(2).argmax(1)
    return torch.cat([queries[:, None], candidates], 1), torch.nn.functional.one_hot(best, 4).float()


def ranked(*parts, **teacher) -> kdmesh.Mesh:
    made = kdmesh.Mesh(data=kdmesh.data(*parts), task="ranking", splits={"validation": 0}, train=TRAIN)
    made.agent("t", {"bi_encoder": {"hidden": [8]}}, **teacher)
    made.agent("s", {"bi_encoder": {"hidden": [8]}})
    made.connect("ensemble", teachers="t", student="s", objective="kl")
    return made


def test_a_query_is_known_again_among_other_candidates(tmp_path):
    known, new = points(60)[0], points(60, seed=5)[0]
    learned = lists(known, 1)
    result = ranked(learned, None, lists(new, 2)).run(backend="inline", out=tmp_path)
    weights = {"update": "frozen", "weights": str(result.folder / "agents" / "t" / "model.safetensors")}
    fresh = points(80, seed=6)[0]
    count, split, error = refused(
        ranked(lists(fresh, 3), None, lists(torch.cat([known[:30], fresh[60:]]), 4), **weights)
    )
    assert (count, split) == (30, "test") and "samples (their queries) were used" in error.what
    candidates = learned[0][:, 1:]
    moved = torch.cat([new[:, None], candidates], 1), learned[1]  # of candidates nothing is recorded
    assert marks(ranked(lists(fresh, 3), None, moved, **weights)) == []


def test_queries_that_stand_in_two_splits_are_told():
    known = points(60)[0]
    (text,) = marks(ranked(lists(known, 1), None, lists(known[:20], 2)))
    assert text.startswith("every test sample has the query of one that teaches: test figures are of what was learned")
