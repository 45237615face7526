"""What a party refuses of its coordinator, and a coordinator of a party, whatever the other side sends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kdmesh.backends.calls import Calls, Unlike
from kdmesh.backends.parties import PartiesBackend
from kdmesh.backends.wire import pack, unpack
from kdmesh.engine.check import examine
from kdmesh.engine.launch import blueprint, run_once
from kdmesh.engine.request import Request
from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.publications import Key
from kdmesh.parties.member import Member
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.testing.leaks import Search

SHARDS = {"of": "train", "shards": {"by": "class", "classes": 5, "of": ["a", "b"]}, "private": True}
MESH = {
    "data": {"dataset": "digits", "transfer": 0.3, "train": 200, "validation": 40, "test": 40},
    "streams": {"own": SHARDS},
    "agents": {"a": {"model": {"mlp": {"hidden": [8]}}}, "b": {"model": {"mlp": {"hidden": [12]}}}},
    "parties": {"north": ["a"], "south": ["b"]},
    "connect": [{"rounds": {"students": ["a", "b"], "rounds": 2, "labels_stream": "own"}}],
    "train": {"batch_size": 32},
}


@pytest.fixture(scope="module")
def spec():
    return parse(MESH)


@pytest.fixture
def member(spec, tmp_path):
    """A party that was opened."""
    made = Member(spec, "north", tmp_path)
    assert said(made, {"open": 1, "seed": 0, "sizes": {}}, incarnation=0) == {"value": None}
    return made


def said(member, message, incarnation=1):
    return unpack(member.answer(pack({"incarnation": incarnation, **message})))


class Caller:
    """Calls a party as a coordinator does, and counts."""

    def __init__(self, member):
        self.member, self.number = member, 0

    def __call__(self, method, *args, stay=None):
        self.number += 1
        found = said(self.member, {"call": self.number, "method": method, "args": [*args], "stay": stay or {}})
        if "value" not in found:
            self.number -= 1
        return found


def begun(member):
    call = Caller(member)
    assert "value" in call("start", "a", {"a": 10, "b": 10})
    return call


@pytest.mark.parametrize(
    ("method", "args", "why"),
    [
        ("take_snapshot", ["a", {}], "a call of 'take_snapshot'"),
        ("__class__", [], "a call of '__class__'"),
        ("_assemble", [None], "a call of '_assemble'"),
        ("publish", ["b", "transfer", ("",)], "no agent here"),
        ("publish", ["a", "nothing", ("",)], "a stream 'nothing' that there is not"),
        ("publish", ["a", "transfer", [""]], "argument 2 of publish"),
        ("publish", ["a", 3, ("",)], "argument 1 of publish"),
        ("publish", ["a"], "1 arguments of publish"),
        ("evaluate", ["a", "own"], "on the private stream 'own'"),
        ("evaluate_consensus", ["c", "test", []], "which is formed elsewhere"),
        ("start", ["z", {}], "a stage 'z' that there is not"),
        ("save", ["a", "/tmp/elsewhere"], "argument 1 of save"),
        ("load", ["a", {"north.safetensors": b"../../etc/passwd"}], "whose sum is none"),
        ("load", ["a", {"north.safetensors": b"0" * 64}], "is not here"),
        ("run", [("south", "a", 0, [(0, None)], [0])], "steps of another host"),
        ("receive", [{("a", "transfer", "", "publish"): []}], "do not come"),
        ("take_weights", ["a", [1.0], {}], "do not fit"),
        ("take_weights", ["b", [1.0], {}], "which are not here"),
        ("keep_best", ["a", "x"], "argument 1 of keep_best"),
    ],
)
def test_a_party_does_what_its_plan_has_a_reason_for(member, method, args, why):
    found = begun(member)(method, *args)
    assert why in found["refused"], found


def test_what_a_party_publishes_leaves_where_its_plan_says_so(member):
    call = begun(member)
    assert call("publish", "a", "transfer", ("",)) == {"value": None}  # it stays
    found = said(member, {"fetch": call.number})["value"]
    ((key, packed),) = found.items()
    assert key == ("a", "transfer", "", "publish") and packed[0][2][0][1].shape[1] == 10


@pytest.mark.parametrize(
    ("method", "args", "why"),
    [
        ("publish", ["a", "own", ("",)], "logits of a on 'own' do not leave"),
        ("publish", ["a", "train", ("",)], "logits of a on 'train' do not leave"),
        ("export_state", ["a"], "weights of a do not leave north"),
    ],
)
def test_what_the_plan_does_not_name_is_not_given(member, method, args, why):
    call = begun(member)
    assert call(method, *args) == {"value": None}
    assert why in said(member, {"fetch": call.number})["refused"]


def test_a_party_that_was_told_to_leak_still_does_not(member, monkeypatch):
    """A plugin that puts samples where its answers should be: rows are of another shape, and stay there."""
    host = member.host
    raw = host.table.x[host.streams["transfer"].rows]
    monkeypatch.setattr(host.agents["a"], "inference", lambda *_: (raw.flatten(1), {}))
    call = begun(member)
    call("publish", "a", "transfer", ("",))
    why = said(member, {"fetch": call.number})["refused"]
    assert "rows of shape [64] of a, where they have [10]" in why
    assert not (member.folder / "left.jsonl").exists()


def test_no_text_that_an_error_made_leaves_beside_figures(member, monkeypatch):
    """Why FLOPs are not counted, and why a folder cannot be read again, may hold a sample."""
    heard = []
    member.say = heard.append

    def fails(*_):
        raise ValueError("the patient of row 7")

    monkeypatch.setattr("kdmesh.hosts.export.prove", fails)
    monkeypatch.setattr(member.host.loader, "one", lambda *_: torch.zeros(1, 3))  # of another shape than the model's
    call = begun(member)
    (count, why) = call("costs")["value"]["flops"]["a"]
    files, proof = call("save_agent", "a", None, {})["value"]
    assert count is None and "written down" in why and "written down" in proof["problem"] and files
    assert "no FLOPs of a: RuntimeError" in heard[0] and "the patient of row 7" in heard[1]


@pytest.mark.parametrize("message", [b"", b"x" * 9, pack(3), pack({"incarnation": True}), pack({"incarnation": 7})])
def test_no_message_ends_a_party(member, message):
    assert "refused" in unpack(member.answer(message))
    assert "value" in said(member, {"there": True})


def test_calls_are_numbered(member):
    call = begun(member)
    for number in (0, 1, 3, "2", None):
        found = said(member, {"call": number, "method": "describe", "args": [], "stay": {}})
        assert "the next one is call 2" in found["refused"]
    assert "value" in call("describe")
    assert "left nothing here" in said(member, {"fetch": 99})["refused"]
    assert "incarnation 0" in said(member, {"there": True}, incarnation=0)["refused"]
    assert "refused" in said(member, {"open": 1, "seed": 0, "sizes": {}})  # it is over


def test_what_failed_is_told_without_its_values(member):
    """The message of an error may hold a sample: it stays here."""
    heard = []
    member.say = heard.append

    def fails(*_):
        raise ValueError("the patient of row 7")

    member.host.describe = fails
    found = begun(member)("describe")
    assert found == {"failed": "ValueError"} and "the patient of row 7" in heard[-1]


@pytest.mark.parametrize("way", ["kind", "place", "message", "log"])
def test_an_error_that_was_made_of_a_sample_tells_none(member, way):
    """Its kind, its place or its text: what is answered is searched, as is what stays here."""
    heard = []
    member.say = heard.append
    search = Search({"north": member.host.table.x[member.host.streams["own"].rows].flatten(1).numpy() * 16})
    row = member.host.table.x[member.host.streams["own"].rows_for("a")][3].flatten() * 16
    text = ",".join(f"{value:g}" for value in row.tolist())

    def fails(*_):
        if way == "log":
            member.say(text)
            raise ValueError
        raise {
            "kind": type(text, (Exception,), {})(),
            "place": MeshError("it", where=text),
            "message": MeshError(text, where="agents.a"),
        }[way]

    member.host.describe = fails
    call = begun(member)
    sent = member.answer(
        pack({"incarnation": 1, "call": call.number + 1, "method": "describe", "args": [], "stay": {}})
    )
    assert "failed" in unpack(sent) and search(sent, "the answer") == []
    assert search("\n".join(heard).encode(), "what is written down here")


@pytest.fixture(scope="module")
def calls(spec):
    plan = make_plan(spec, registry())
    checked = examine(plan)
    config, _ = blueprint(Request(spec, "inline"), plan, checked)
    return Calls(plan, checked.streams, config.shapes, config.statistics, 10), len(checked.streams["transfer"].rows)


def dense(array):
    return named("", array)


def named(name, array):
    return [(name, "dense", [("dense", array, f"torch.{array.dtype}")])]


def zeros(rows):
    return dense(np.zeros((rows, 10), np.float32))


ABOUT = ("a", "transfer", ("",))
WHO = ("a", "transfer", "", "publish")


def test_a_coordinator_takes_what_it_asked_for(calls):
    made, rows = calls
    value = np.zeros((rows, 10), np.float32)
    found = made.result("publish", {WHO: dense(value)}, ABOUT)
    assert list(found) == [Key(*WHO)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: {WHO: dense(np.zeros((rows - 1, 10), np.float32))}, "rows of a, where stream"),
        (lambda rows: {WHO: dense(np.zeros((rows, 11), np.float32))}, r"rows of shape \[11\]"),
        (lambda rows: {WHO: dense(np.full((rows, 10), np.nan, np.float32))}, "that are no numbers"),
        (lambda rows: {WHO: dense(np.full((rows, 10), np.inf, np.float32))}, "that are no numbers"),
        (lambda rows: {("b", *WHO[1:]): dense(np.zeros((rows, 10), np.float32))}, "where a on 'transfer' was asked"),
        (lambda rows: {("a", "own", "", "publish"): dense(np.zeros((rows, 10), np.float32))}, "was asked"),
        (lambda rows: {WHO: [*dense(np.zeros((rows, 10), np.float32)), *dense(np.zeros(1, np.float32))]}, "a part"),
        (
            lambda rows: {WHO: [("more", "dense", [("dense", np.zeros(1, np.float32), "torch.float32")])]},
            "a part 'more'",
        ),
        (lambda rows: {WHO: [("", "dense", [("", np.zeros((rows, 10), np.float32), "torch.float32")])]}, "a part"),
        (
            lambda rows: {WHO: [("", "dense", [("dense", np.zeros((rows, 10), np.float32), "torch.bfloat16")])]},
            "said to",
        ),
        (lambda rows: {WHO: dense(np.zeros((rows, 10), np.int64))}, "array of int64 that is said to be"),
        (lambda rows: {WHO: dense(np.zeros((), np.float32))}, "0 rows of a"),
        (lambda rows: {WHO: dense(np.full((rows, 10), -np.inf, np.float32))}, "that are no numbers"),
        (lambda rows: {WHO: [*zeros(rows), *named("present", np.full(rows, 1e3, np.float32))]}, "a part 'present'"),
        (lambda rows: {WHO: [*zeros(rows), *named("present", np.ones(3, bool))]}, "a part 'present'"),
        (lambda rows: {WHO: [*zeros(rows), *named("errors", np.zeros((2, 2), np.float32))]}, "a part 'errors'"),
        (lambda rows: {WHO: []}, "nothing of what a says"),
        (lambda rows: [1], "the result of publish"),
        (lambda rows: {"a": dense(np.zeros((rows, 10), np.float32))}, "the result of publish"),
    ],
)
def test_a_coordinator_takes_nothing_else(calls, change, said):
    made, rows = calls
    with pytest.raises(Unlike, match=said):
        made.result("publish", change(rows), ABOUT)


class Near:
    """A link to a party in this process."""

    def __init__(self, member):
        self.member, self.sent = member, []
        self.gone = False

    def ask(self, message):
        if self.gone:
            raise HostLost("gone")
        answer = self.member.answer(message)
        self.sent += [message, answer]
        return answer


class Room:
    """Parties that have met, in this process."""

    def __init__(self, members):
        self.members = {name: Near(member) for name, member in members.items()}

    def links(self, names, least=None):
        return self.here(names) if least is not None else {name: self.members[name] for name in names}

    def here(self, names):
        return {name: self.members[name] for name in names if not self.members[name].gone}

    def sizes(self):
        return {}


@pytest.fixture
def room(spec, tmp_path):
    return Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})


def test_over_links_a_run_has_the_bits_of_a_simulation(spec, room):
    """With one thread at a time: both parties draw from this process's generator."""
    expected, _, _ = run_once(Request(spec, "inline"))
    backend = PartiesBackend(room)
    one_at_a_time(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    assert {name: agent["weights_sha256"] for name, agent in summary["agents"].items()} == {
        name: agent["weights_sha256"] for name, agent in expected["agents"].items()
    }


def hosted(backend):
    from kdmesh.backends import Session

    return Session(None, made=backend)


def one_at_a_time(room):
    import threading

    lock = threading.Lock()
    for link in room.members.values():
        ask = link.ask

        def alone(message, ask=ask):
            with lock:
                return ask(message)

        link.ask = alone


def test_no_sample_of_a_party_is_in_what_was_sent(spec, room):
    backend = PartiesBackend(room)
    one_at_a_time(room)
    run_once(Request(spec, hosted=backend), session=hosted(backend))
    table, streams = examine(make_plan(spec, registry())).table, examine(make_plan(spec, registry())).streams
    crossed = b"".join(part for link in room.members.values() for part in link.sent)
    rows = table.x[streams["own"].rows][:40].flatten(1)
    for row in rows:
        for kind in (torch.float32, torch.float16, torch.float64, torch.uint8):
            assert (row * 16 if kind == torch.uint8 else row).to(kind).numpy().tobytes() not in crossed
    shown = table.x[streams["transfer"].rows][:1].flatten(1)
    assert rows.shape[1] == shown.shape[1] == 64 and len(crossed) > 10_000


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("describe", lambda value: {}, "the result of describe: of nobody"),
        ("describe", lambda value: {**value, "b": value["a"]}, "the result of describe: of a, b"),
        ("describe", lambda value: {"a": {**value["a"], "updates": "many"}}, "the result of describe: Input should be"),
        ("answers", lambda value: {"b": value["a"]}, "of 'b', which north does not have"),
        ("evaluate", lambda value: {**value, "accuracy": "high"}, "the result of evaluate: Input should be"),
        ("run", lambda value: ({"z": 1.0}, [], []), "the result of run: of 'z', which north does not have"),
        ("run", lambda value: (value[0], [("z", "", "dead")], value[2]), "of 'z', which north does not have"),
    ],
)
def test_a_party_says_nothing_of_others(spec, room, method, change, said):
    """Nor anything that would end the run without its name."""
    north = room.members["north"]
    ask = north.ask

    def lies(message):
        asked, answer = unpack(message), ask(message)
        return pack({"value": change(unpack(answer)["value"])}) if asked.get("method") == method else answer

    north.ask = lies
    one_at_a_time(room)
    backend = PartiesBackend(room)
    with pytest.raises(RunFailed, match=said):
        run_once(Request(spec, hosted=backend), session=hosted(backend))


COSTS = {
    "flops": {"a": (5, "")},
    "seconds": {"teaching": {"a": 0.5}, "training": {"a": 1.5}},
    "process": {"node": "north", "process": 0, "cpu_s": 1.0, "peak_bytes": None, "gpu_peak_bytes": {}},
    "profile": [],
}


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("costs", {}, "Field required at flops"),
        ("costs", {**COSTS, "flops": {}}, "of nobody"),
        ("costs", {**COSTS, "flops": {"a": (-1, "")}}, "greater than or equal to 0"),
        ("costs", {**COSTS, "seconds": {"resting": {"a": 1.0}}}, "at seconds.resting"),
        ("costs", {**COSTS, "seconds": {"teaching": {"b": 1.0}}}, "of 'b', which north does not have"),
        ("costs", {**COSTS, "seconds": {"teaching": {"a": float("nan")}}}, "finite number"),
        ("costs", {**COSTS, "process": {**COSTS["process"], "sample": [1.0]}}, "Extra inputs"),
        ("costs", {**COSTS, "profile": [("rule", "mean", "often", 0.0)]}, "at profile.0.2"),
        ("shelved", {"agents": {}}, "Input should be None"),
        ("report", {"weight of a": float("inf")}, "finite number"),
        ("report", {"weight of a": [1.0]}, "valid number"),
        ("evaluate_consensus", {"quality": {}, "oracle": False, "sample": [1.0]}, "Extra inputs"),
        ("endpoints", {"a": {"model": "m"}}, "Field required"),
        ("save_agent", (["model.safetensors"], {"problem": 3}), "valid string"),
    ],
)
def test_a_coordinator_takes_no_figures_of_another_kind(calls, method, value, said):
    made = calls[0]
    made.result("costs", COSTS, host="north")
    with pytest.raises(Unlike, match=f"the result of {method}") as error:
        made.result(method, value, host="north")
    assert said in error.value.what


def test_a_call_behind_a_refused_one_says_why_that_was_refused(spec, room):
    """Nobody asks for what a publication gives where it stays: its refusal is told by the next call."""
    backend = PartiesBackend(room)
    plan = make_plan(spec, registry())
    checked = examine(plan)
    config, source = blueprint(Request(spec, "inline"), plan, checked)
    backend.open(config, source)
    try:
        lost = backend.call("north", "publish", "a", "nothing", ("",))
        later = backend.call("north", "describe")
        for handle in (later, lost, backend.call("south", "receive", lost), backend.call("south", "describe")):
            with pytest.raises(RunFailed, match=r"north refuses \(publish\): publish on a stream 'nothing'"):
                backend.get([handle])
    finally:
        backend.close()


def test_a_run_that_an_error_of_samples_ends_has_none_of_them(spec, room):
    """Neither in what was sent, nor in what is raised and told of it at the coordinator."""
    north, backend, told = room.members["north"], PartiesBackend(room), []
    ask = north.ask

    def fails(*_):
        host = north.member.host
        row = host.table.x[host.streams["own"].rows_for("a")][3].flatten() * 16
        raise ValueError(",".join(f"{value:g}" for value in row.tolist()))

    def raising(message):
        if unpack(message).get("method") == "run":
            north.member.host.run = fails
        return ask(message)

    north.ask = raising
    one_at_a_time(room)
    with pytest.raises(RunFailed) as error:
        run_once(Request(spec, hosted=backend, listeners=(told.append,)), session=hosted(backend))
    assert "north failed (run): ValueError" in str(error.value) and error.value.where == "parties.north"
    table, streams = examine(make_plan(spec, registry())).table, examine(make_plan(spec, registry())).streams
    search = Search({"all": table.x[streams["own"].rows].flatten(1).numpy() * 16})
    sent = b"".join(part for link in room.members.values() for part in link.sent)
    for content in (sent, repr(told).encode(), f"{error.value!r} {error.value} {error.value.__cause__}".encode()):
        assert content and search(content, "the coordinator") == []


@pytest.mark.parametrize("files", [{}, {"south.json": b"0" * 64}, {"north.json": b"0" * 64}, {"../x": b"0" * 64}])
def test_a_party_s_part_of_a_checkpoint_is_its_own(calls, files):
    from kdmesh.hosts.checkpoint import part_names

    made, _ = calls
    made.result("save", dict.fromkeys(part_names("north"), b"0" * 64), host="north")
    with pytest.raises(Unlike, match="the result of save"):
        made.result("save", files, host="north")
    with pytest.raises(Unlike, match="the result of save"):
        made.result("save", dict.fromkeys(part_names("north"), b"content"), host="north")


def test_a_party_keeps_what_it_published_no_longer_than_anyone_may_ask(spec, tmp_path):
    """However many rounds there are."""
    kept = []
    for rounds in (2, 6):
        longer = parse({**MESH, "connect": [{"rounds": {**MESH["connect"][0]["rounds"], "rounds": rounds}}]})
        met = Room({name: Member(longer, name, tmp_path / name / str(rounds)) for name in longer.parties})
        one_at_a_time(met)
        backend = PartiesBackend(met)
        run_once(Request(longer, hosted=backend), session=hosted(backend))
        kept.append({name: len(link.member._results) for name, link in met.members.items()})
    assert kept[0] == kept[1]


def test_what_waited_for_a_lost_party_asks_nothing_of_the_next_incarnation(spec, room):
    backend = PartiesBackend(room)
    backend.incarnation = 7
    backend.links = dict(room.members)
    with pytest.raises(RunFailed, match="a message of incarnation 6"):
        backend._answer("north", 6, {"there": True})


def test_a_lying_party_ends_the_run_with_its_name(spec, room):
    north = room.members["north"]

    def lies(message):
        asked, answer = unpack(message), north.member.answer(message)
        if "fetch" not in asked:
            return answer
        ((key, packed),) = unpack(answer)["value"].items()
        (name, kind, ((part, array, dtype),)) = packed[0]
        return pack({"value": {key: [(name, kind, [(part, array[:-1], dtype)])]}})

    north.ask = lies
    backend = PartiesBackend(room)
    with pytest.raises(RunFailed, match="rows of a, where stream"):
        run_once(Request(spec, hosted=backend), session=hosted(backend))


AVERAGED = {
    **{key: value for key, value in MESH.items() if key != "connect"},
    "agents": {
        "server": {"model": {"mlp": {"hidden": [8]}}, "update": "merged"},
        "a": {"model": {"mlp": {"hidden": [8]}}, "init_of": "server"},
        "b": {"model": {"mlp": {"hidden": [8]}}, "init_of": "server"},
    },
    "flows": [
        {"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"},
        {"from": ["a", "b"], "to": "server", "as": "weights", "weight": "samples", "stream": "own", "refresh": "round",
         "discloses": "weights"},
        {"from": "server", "to": ["a", "b"], "as": "weights", "refresh": "round"},
    ],
    "program": [
        {"of": ["a", "b", "server"], "repeat": 3,
         "do": [{"train": ["a", "b"], "epochs": 1}, {"publish": ["a", "b"]}, {"publish": ["server"]}]},
    ],
}  # fmt: skip
ROBUST = {
    **AVERAGED,
    "consensus": {"pool": "median"},
    "flows": [
        AVERAGED["flows"][0],
        {"from": ["a", "b"], "to": "pool", "as": "weights", "refresh": "round", "discloses": "weights"},
        {"from": "pool", "to": ["a", "b", "server"], "as": "weights"},
    ],
    "program": [
        {"of": ["a", "b", "server"], "repeat": 3, "do": [{"train": ["a", "b"], "epochs": 1}, {"publish": ["a", "b"]}]},
    ],
}


@pytest.mark.parametrize("fields", [AVERAGED, ROBUST], ids=["fedavg", "median of weights"])
def test_weights_that_are_disclosed_cross(fields, tmp_path):
    spec = parse(fields)
    expected, _, _ = run_once(Request(spec, "inline"))
    room = Room({name: Member(spec, name, tmp_path / name) for name in spec.parties})
    one_at_a_time(room)
    backend = PartiesBackend(room)
    summary, _, _ = run_once(Request(spec, hosted=backend), session=hosted(backend))
    assert {name: agent["weights_sha256"] for name, agent in summary["agents"].items()} == {
        name: agent["weights_sha256"] for name, agent in expected["agents"].items()
    }
    left = [json.loads(line) for line in (tmp_path / "north" / "left.jsonl").read_text().splitlines()]
    assert {line["method"] for line in left} == {"export_state"}


def test_a_reader_gives_back_what_came_to_it_and_nothing_else(spec, tmp_path):
    """After a loss, what a source said last comes from who reads it."""
    flows = [{"from": "labels", "to": name, "objective": "ce", "stream": "own"} for name in "ab"]
    taught = {"from": "a", "to": "b", "objective": "kl", "stream": "transfer", "refresh": "epoch"}
    direct = parse({**MESH, "connect": [], "flows": [*flows, taught]})
    reader = Member(direct, "south", tmp_path)
    said(reader, {"open": 1, "seed": 0, "sizes": {}}, incarnation=0)
    call = Caller(reader)
    assert call("recall", "a", "transfer", ("",)) == {"value": None}
    assert said(reader, {"fetch": 1}) == {"value": {}}  # nothing came yet
    for about in (["a", "own", ("",)], ["a", "test", ("",)], ["a", "transfer", ("more",)]):
        assert "no agent here" in call("recall", *about)["refused"]


def test_figures_by_a_column_and_why_one_is_not_defined_are_taken(calls):
    """And of the whole: a mesh that measures by a column, of which one metric has no figure on these samples."""
    by = {"metric": "accuracy", "column": "site", "values": {"a": 0.5, "b": None}, "rows": {"a": 2, "b": 1}}
    figures = {
        "accuracy": 0.5,
        "accuracy by site": by,
        "confusion": [[1, 2], [3, 4]],
        "undefined": {"auc": "one class"},
    }
    assert calls[0].result("evaluate", figures) == figures
    for odd in ("text", np.zeros(2), b"1", {"a": np.zeros(2)}):
        with pytest.raises(Unlike, match="the result of evaluate"):
            calls[0].result("evaluate", {"accuracy": odd})
