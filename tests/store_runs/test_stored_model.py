"""What the store has of an agent or a consensus, as a frozen agent of another mesh: inline, on Ray, resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import mesh, points, run, table
from test_histories import mesh as peers
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main
from kdmesh.errors import MeshError, RunFailed
from kdmesh.objectives import ForwardKL
from kdmesh.store import EntryKey, Fingerprint, Store
from kdmesh.store.history import History, Retention, history_key
from kdmesh.store.signals import read_signal, write_signal
from kdmesh.streams.contents import digests
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table

TEMPERATURE = 4.0


def entry(store: Path, who: str, rows: int = 90) -> str:
    """The first digits of what the store has of an agent's logits, or of a history."""
    (found,) = (
        one.digest[:12]
        for one in Store.open(store).entries()
        if one.key is not None and who in (one.info.get("agent"), one.key.producer.get("history")) and one.rows == rows
    )
    return found


def reader(settings: Any, data: Table | None = None, agent: Any = None, **flow: Any) -> kdmesh.Mesh:
    """The student of `small_runs.mesh`, taught by what the store has."""
    train = {"epochs": 3, "batch_size": 32, "forward_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}
    made = kdmesh.Mesh(data=table() if data is None else data, train=train)
    made.agent("t", {"stored": {"entry": settings} if isinstance(settings, str) else settings},
               **{"update": "frozen", **(agent or {})})  # fmt: skip
    made.agent("s", {"mlp": {"hidden": [12]}})
    made.flow("labels", "s", objective="ce")
    made.flow("t", "s", **{"objective": "kl", **flow})
    return made


def student(summary: dict[str, Any]) -> tuple[str, Any]:
    return summary["agents"]["s"]["weights_sha256"], summary["agents"]["s"]["metrics"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store with a teacher's answers, and the run that made them."""
    store = tmp_path_factory.mktemp("filled")
    return store, run(mesh(flow={"refresh": "once"}), store)


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the history of a consensus of three rounds."""
    store = tmp_path_factory.mktemp("agreed")
    run(peers(), store)
    return store


@pytest.mark.parametrize("refresh", ["once", "step"])
def test_a_student_of_an_entry_is_a_student_of_the_teacher(filled: Any, refresh: str, tmp_path: Path) -> None:
    store, live = filled
    key = entry(store, "t")
    found = reader(key, refresh=refresh).run(backend="inline", store=str(store), out=tmp_path)
    assert student(found.summary) == student(live)
    told = found.summary["agents"]["t"]
    assert told["role"] == "teacher" and told["parameters"] == 0
    assert told["metrics"] == live["agents"]["t"]["metrics"]  # it was measured, and that is kept, too
    assert not any("measured" in one for one in found.summary["notes"])
    assert "t" not in found.summary["store"]["agents"] and "t" not in found.summary["store"]["not_kept"]
    again = reader({"entry": key, "store": str(store)}, refresh=refresh)
    assert student(again.run(backend="inline", store="off").summary) == student(live)


def test_the_folder_of_a_run_has_the_whole_name_and_its_agent_is_read_again(filled: Any, tmp_path: Path) -> None:
    store, _ = filled
    key = entry(store, "t")
    folder = reader(key).run(backend="inline", store=str(store), out=tmp_path).folder
    assert folder is not None
    model = json.loads((folder / "manifest.json").read_text())["mesh"]["agents"]["t"]["model"]
    whole, measured = (Store.open(store).find(one).digest for one in (key, entry(store, "t", 80)))
    assert model == {"stored": {"entry": whole, "store": str(store), "measured": measured}}
    module = kdmesh.load(folder / "agents" / "t")
    said = module(points(90, 0)[0][:5])
    assert said.shape == (5, 3)
    targets = kdmesh.targets(TensorDataset(points(90, 0)[0]), key, store=str(store))
    assert torch.equal(said, torch.stack([targets[at][1] for at in range(5)]))


def test_it_is_measured_by_what_a_run_or_a_label_keeps(filled: Any, tmp_path: Path) -> None:
    """Of which forwards are of another size, so that it is another entry; where that is not there, what makes it is."""
    store, live = filled
    taught, own = entry(store, "t"), entry(store, "t", 80)
    opened = Store.open(store)
    opened.export(opened.find(taught).key, tmp_path)
    found = reader(taught).run(backend="inline", store=str(tmp_path)).summary
    assert student(found) == student(live) and found["agents"]["t"]["metrics"] == {"validation": {}, "test": {}}
    why = "t is not measured on test: it has no answer to 40 of its 40 samples; `kdmesh label FILE --agents t`, of the"
    assert any(why in one for one in found["notes"])
    for measured in (None, own):  # as found, and as a resolved mesh says it
        settings = {"entry": taught, **({"measured": measured} if measured else {})}
        told = reader(settings).run(backend="inline", store=str(store)).summary
        assert told["agents"]["t"]["metrics"] == live["agents"]["t"]["metrics"]
    with pytest.raises(MeshError, match="is not of the agent that answered in") as error:
        reader({"entry": own, "measured": own}).run(backend="inline", store=str(store))
    assert error.value.where == "agents.t.model.stored.measured"


@pytest.mark.ray
def test_on_ray(filled: Any) -> None:
    store, live = filled
    found = reader(entry(store, "t")).run(backend="ray", store=str(store)).summary
    assert student(found) == student(live)


def plain(answered: Dataset[Any]) -> dict[str, torch.Tensor]:
    """The mesh's student in a loop of one's own, on the history's probabilities made logits."""
    settings = {"epochs": 1, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}
    made = kdmesh.Mesh(data=table(), train=settings)
    made.agent("s", {"mlp": {"hidden": [12]}})
    made.flow("labels", "s", objective="ce")
    from kdmesh.hosts.modules import build
    from kdmesh.hosts.preprocessing import Preprocessor
    from kdmesh.plugins import registry

    plan = made.plan()
    net = build(plan, "s", Preprocessor(plan, table(), registry(), None, None), registry(), {})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)  # as a mesh makes it
    kl, tiny = ForwardKL(TEMPERATURE), torch.finfo(torch.float32).tiny
    for epoch in range(3):
        order = epoch_order(0, "train", epoch, 90).tolist()
        for x, y, target in DataLoader(answered, batch_size=32, sampler=order):
            optimizer.zero_grad()
            said = net(x)
            told = answered.temperature * target.clamp_min(tiny).log()  # type: ignore[attr-defined]
            (nn.functional.cross_entropy(said, y) + kl(said, told)).backward()
            optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("round", [None, 2])
def test_a_student_of_a_history_is_that_of_a_plain_loop(agreed: Path, round: int | None, tmp_path: Path) -> None:
    key = entry(agreed, "c", 270)
    settings = {"entry": key, **({"round": round} if round else {})}
    flow = {"objective": {"kl": {"temperature": TEMPERATURE}}, "refresh": "step"}
    found = reader(settings, **flow).run(backend="inline", store=str(agreed), out=tmp_path)
    data = TensorDataset(*points(90, 0))
    expected = plain(kdmesh.targets(data, key, store=str(agreed), round=round))
    own = found["s"].module.state_dict()
    assert {name: bool(torch.equal(own[name], value)) for name, value in expected.items()} == dict.fromkeys(own, True)
    assert found.folder is not None
    told = json.loads((found.folder / "manifest.json").read_text())["mesh"]["agents"]["t"]["model"]["stored"]
    assert told["round"] == (round or 3)


def test_its_logits_softened_are_what_was_kept(agreed: Path) -> None:
    key = entry(agreed, "c", 270)
    answered = kdmesh.targets(TensorDataset(points(90, 0)[0]), key, store=str(agreed))
    from kdmesh.builtin.models.stored import Stored

    module = Stored((8,), 3, key, store=agreed)
    said, kept = module(points(90, 0)[0]), torch.stack([answered[at][1] for at in range(90)])
    torch.testing.assert_close((said / answered.temperature).softmax(-1), kept, rtol=1e-6, atol=1e-7)


def test_resumed_and_refused_once_the_entry_is_gone(
    filled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, live = filled
    call, left = InlineBackend.call, 12

    def mortal(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise RuntimeError("broken off")
        return call(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", mortal)
    made = reader(entry(store, "t"), refresh="step")
    with pytest.raises(RunFailed, match="broken off"):
        made.run(backend="inline", store=str(store), out=tmp_path, checkpoint_seconds=0)
    (folder,) = (tmp_path / "mesh").iterdir()
    away = store.with_name("away")
    store.rename(away)
    try:
        with pytest.raises(MeshError, match="no entry begins with") as refused:
            made.run(resume=folder, store=str(store))
        assert refused.value.where == "agents.t.model.stored.entry"
    finally:
        away.rename(store)
    assert student(made.run(resume=folder, store=str(store)).summary) == student(live)


def test_what_it_is_measured_by_does_not_teach(filled: Any, tmp_path: Path) -> None:
    """Not even samples of which the entry's own answers are damaged."""
    from kdmesh.builtin.models.stored import Stored

    store, _ = filled
    opened = Store.open(store)
    keys = [opened.find(entry(store, "t", rows)).key for rows in (90, 80)]
    for key in keys:
        opened.export(key, tmp_path)
    x, own = points(90, 0)[0], Store.open(tmp_path).entry(keys[1])
    write_signal(own, digests(x), torch.full((90, 3), 7.0), None, Fingerprint.here())
    module = Stored((8,), 3, keys[0].digest, store=tmp_path, measured=keys[1].digest)
    (shard,) = (tmp_path / "v1" / keys[0].digest[:2] / keys[0].digest / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(MeshError, match=r"90 of 90 samples have no answer in entry .*is damaged and was set aside"):
        module(x)


def test_what_is_in_use_is_not_pruned(filled: Any) -> None:
    from kdmesh.builtin.models.stored import Stored

    store, _ = filled
    key = entry(store, "t")
    copy = store.with_name("copy")
    (one,) = (one for one in Store.open(store).entries() if one.digest.startswith(key))
    assert one.key is not None
    Store.open(store).export(one.key, copy)
    module = Stored((8,), 3, key, store=copy)
    assert Store.open(copy).prune(0) == []
    assert module(points(90, 0)[0]).shape == (90, 3)
    del module
    assert [gone.digest for gone in Store.open(copy).prune(0)] == [one.digest]


@pytest.mark.parametrize(
    ("settings", "more", "where", "what"),
    [
        ({"entry": "0000"}, {}, "agents.t.model.stored.entry", "no entry begins with '0000'"),
        ({"round": 2}, {}, "agents.t.model.stored.round", "has no rounds"),
        ({}, {"agent": {"update": "grad"}}, "agents.t.update", "no weights that could change"),
        ({}, {"agent": {"seed": 3}}, "agents.t.seed", "`seed` has no effect"),
        ({}, {"agent": {"weights": "some.safetensors"}}, "agents.t.weights", "`weights` has no effect"),
        ({}, {"agent": {"train": {"forward_size": 3}}}, "agents.t.train.forward_size", "its answers up, so that"),
        ({}, {"agent": {"view": {"augment": ["noise"]}}}, "agents.t.view", "a view of one is another sample"),
        ({}, {"agent": {"labels": [0, 1]}}, "agents.t.labels", "answers for all classes"),
        ({}, {"data": table(seed=5)}, "agents.t.model", "no answer to 90 of the 90 samples of 'train', the first"),
    ],
)
def test_refused(filled: Any, settings: Any, more: Any, where: str, what: str) -> None:
    store, _ = filled
    made = reader({"entry": entry(store, "t"), **settings}, **more)
    with pytest.raises(MeshError) as refused:
        made.run(backend="inline", store=str(store))
    assert (refused.value.where, what in str(refused.value)) == (where, True), refused.value
    assert refused.value.instead


def test_it_has_no_weights_that_could_flow(filled: Any) -> None:
    store, _ = filled
    made = reader(entry(store, "t"))
    made.flow("t", "s", **{"as": "weights", "refresh": "once"})
    with pytest.raises(MeshError, match="t looks its answers up, and has no weights that could flow") as refused:
        made.run(backend="inline", store=str(store))
    assert refused.value.where == "flows.2"


def test_some_samples_missing_another_shape_and_other_classes(filled: Any) -> None:
    store, _ = filled
    x, y = points(90, 0)
    x[7] += 1
    for data, what in (
        (kdmesh.data((x, y), points(40, 1), points(40, 2), classes=3), "no answer to 1 of the 90 samples of 'train'"),
        (kdmesh.data(points(90, 0, 5), points(40, 1, 5), points(40, 2, 5), classes=3), "samples of shape [8]"),
        (kdmesh.data(points(90, 0), points(40, 1), points(40, 2), classes=4), "the task asks for 4"),
    ):
        with pytest.raises(MeshError) as refused:
            reader(entry(store, "t"), data).run(backend="inline", store=str(store))
        assert what in str(refused.value), refused.value
        assert refused.value.where.startswith("agents.t.model")
    with pytest.raises(MeshError, match="the first is sample 7"):
        reader(entry(store, "t"), kdmesh.data((x, y), points(40, 1), points(40, 2), classes=3)).run(store=str(store))


def test_without_a_store_of_views_of_a_layer_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="the store is switched off") as refused:
        reader("abcd").run(backend="inline", store="off")
    assert refused.value.where == "agents.t.model.stored"
    run(mesh(teacher={"view": {"augment": ["noise"], "draws": 1}}, flow={"refresh": "once"}), tmp_path)
    with pytest.raises(MeshError, match="answered to views of samples"):
        reader(entry(tmp_path, "t")).run(backend="inline", store=str(tmp_path))
    (folder,) = (tmp_path / "v1").glob(f"??/{entry(tmp_path, 't')}*")
    (folder / "entry.json").write_text("{}")
    with pytest.raises(MeshError, match=r"cannot be read: entry\.json is not what was written"):
        reader(folder.name).run(backend="inline", store=str(tmp_path))


def test_a_flipped_bit_is_told(filled: Any, tmp_path: Path) -> None:
    store, _ = filled
    key = entry(store, "t")
    (one,) = (one for one in Store.open(store).entries() if one.digest.startswith(key))
    assert one.key is not None
    Store.open(store).export(one.key, tmp_path / "copy")
    (shard,) = (tmp_path / "copy").glob("v1/*/*/shards/*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(MeshError) as refused:
        reader(key).run(backend="inline", store=str(tmp_path / "copy"))
    assert "no answer to 90 of the 90" in str(refused.value) and "not those that were written" in str(refused.value)


def test_private_samples(filled: Any) -> None:
    store, _ = filled
    made = reader(entry(store, "t"), stream="mine")
    made._fields["streams"] = {"mine": {"of": "train", "private": True}}
    with pytest.raises(MeshError, match="nothing in the store was said of private"):
        made.run(backend="inline", store=str(store))


def test_a_file_is_checked_run_compared_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store beside the file, by a relative path; with controls, whose students have the same teacher."""
    text = """
    name: {name}
    data: {{dataset: digits, validation: 0.2, test: 0.2}}
    train: {{epochs: 1, batch_size: 64, forward_size: 256}}
    agents:
      t: {{model: {model}, update: frozen}}
      s: {{model: {{mlp: {{hidden: [4]}}}}}}
    flows:
      - {{from: labels, to: s, objective: ce}}
      - {{from: t, to: s, objective: kl}}
    """
    (tmp_path / "first.yaml").write_text(text.format(name="first", model="mlp"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "first.yaml", "--store", "known", "--backend", "inline", "--quiet"]) == 0
    (key,) = {one.digest for one in Store.open("known").entries() if one.info["agent"] == "t"}
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "second.yaml"
    file.write_text(text.format(name="second", model=f"{{stored: {{entry: {key[:8]}, store: ../known}}}}"))
    capsys.readouterr()
    assert main(["check", str(file)]) == 0
    assert "everything fits" in capsys.readouterr().out
    assert main(["run", str(file), "--store", "off", "--backend", "inline", "--quiet", "--controls"]) == 0
    (one,), (two,) = (tmp_path / "runs" / "first").iterdir(), (tmp_path / "runs" / "second").iterdir()
    first, second = (json.loads((folder / "summary.json").read_text())["agents"] for folder in (one, two))
    assert first["s"]["weights_sha256"] == second["s"]["weights_sha256"]
    assert first["t"]["metrics"] == second["t"]["metrics"]  # measured in forwards of the same size
    assert main(["report", str(two)]) == 0
    assert main(["label", str(file), "--agents", "t", "--store", "known"]) == 2
    assert "is in the store already" in capsys.readouterr().err


def test_at_a_url_and_of_another_machine(filled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store at a URL, named in the file; and answers of another version of torch, which are read, and told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, live = filled
    key = entry(store, "t")
    (one,) = (one for one in Store.open(store).entries() if one.digest.startswith(key))
    assert one.key is not None
    rows, here = digests(points(90, 0)[0]), Fingerprint.here()
    near = Store.open(store).entry(one.key)
    assert bool(near.find(rows, here).found.all())
    values, _ = read_signal(near, rows)
    url = f"file://{tmp_path / 'far'}"
    far = Store.open(url).entry(one.key, {"agent": "t"})
    assert write_signal(far, rows, values, None, replace(here, version="0.1")) == 90
    found = reader({"entry": key, "store": url}).run(backend="inline", store="off").summary
    assert student(found) == student(live)
    assert any("t: answers were computed elsewhere (torch" in note for note in found["notes"]), found["notes"]


@pytest.mark.parametrize(
    ("signal", "what"),
    [
        ({"space": "marginals", "temperature": 1.0, "classes": None}, "a history of marginals"),
        ({"space": "logits", "output": "layers.0", "classes": None}, "a history of layers.0"),
        ({"space": "probs", "classes": None}, "probabilities at no temperature"),
        ({"space": "probs", "temperature": 2.0, "classes": [2, 0]}, "the classes [2, 0] alone"),
    ],
)
def test_histories_that_are_no_logits(signal: dict[str, Any], what: str, tmp_path: Path) -> None:
    key = history_key({"seed": 0}, "c", "train", signal, Retention.of("all"))
    rows = digests(points(90, 0)[0])
    History(Store.open(tmp_path).entry(key), Retention.of("all")).add(
        rows, torch.full((90, 3), 1 / 3), None, 1, Fingerprint.here()
    )
    with pytest.raises(MeshError) as refused:
        reader(key.digest).run(backend="inline", store=str(tmp_path))
    assert what in str(refused.value) and refused.value.where.startswith("agents.t")


def test_a_round_that_is_not_there(agreed: Path) -> None:
    with pytest.raises(MeshError, match="has no round 4") as refused:
        reader({"entry": entry(agreed, "c", 270), "round": 4}).run(backend="inline", store=str(agreed))
    assert refused.value.where == "agents.t.model.stored.round" and refused.value.instead == "one of 1, 2, 3"


def test_digits_of_several_entries(tmp_path: Path) -> None:
    """Entries are made until two begin alike."""
    opened, rows, seen = Store.open(tmp_path), digests(points(1, 0)[0]), {}
    for number in range(2000):
        key = EntryKey({"number": number}, {"output": ""})
        if (other := seen.setdefault(key.digest[:4], key)) is not key:
            break
    for one in (key, other):
        write_signal(opened.entry(one), rows, torch.zeros(1, 3), None, Fingerprint.here())
    with pytest.raises(MeshError, match="2 entries begin with"):
        reader(key.digest[:4]).run(backend="inline", store=str(tmp_path))
