"""Streams that an agent writes while it trains: equal bits on one host and several, broken off and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from near import SIZE, Near, frozen, mesh
from torch import Tensor
from torch.nn.functional import cross_entropy

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.dropping import obstacle
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.written import Written
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table

DATA = {"dataset": "python:given"}


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(autouse=True)
def chunks_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step on one host, after every second one between hosts."""
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many chunks were run, and before which one to break off."""
    known = {"made": 0, "last": 0}
    inner = InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        known["made"] += method == "run"
        if known["last"] and known["made"] == known["last"]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


def run(table: Table, refresh: str, placement: str, writer: Any = None, **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    fields = more.pop("fields", mesh)(refresh, placement, DATA, **more.pop("train", {}))
    writers = {"made": writer or Near()}
    summary = run_once(Request(parse(fields), "inline", table=table, writers=writers, checkpoint_seconds=0, **more))[0]
    return {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}


@pytest.mark.parametrize(
    ("fields", "refresh", "parts"), [(mesh, "step", (3,)), (mesh, "5 steps", (2, 4)), (frozen, "5 steps", (4,))]
)
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    table: Table, fields: Any, refresh: str, parts: tuple[int, ...], tmp_path: Path, calls: dict[str, int]
) -> None:
    expected: dict[str, Any] = {}
    for placement in ("together", "spread"):
        calls.update(made=0, last=0)
        found = run(table, refresh, placement, fields=fields)
        expected = expected or found
        assert found == expected
        whole = calls["made"]
        for part in parts:  # sixths: between the first write and a later use of it, and of the second
            calls.update(made=0, last=whole * part // 6 + 1)
            out = tmp_path / f"{placement}{part}"
            with pytest.raises(KeyboardInterrupt):
                run(table, refresh, placement, fields=fields, out=out)
            calls.update(made=0, last=0)
            (folder,) = out.glob("*/*")
            assert run(table, refresh, placement, fields=fields, resume=folder) == expected
            assert 0 < calls["made"] < whole


class Other(Near):
    """Writes as the other does."""


def test_a_run_goes_on_with_the_writer_that_it_was_begun_with(
    table: Table, tmp_path: Path, calls: dict[str, int]
) -> None:
    calls["last"] = 3
    with pytest.raises(KeyboardInterrupt):
        run(table, "step", "together", out=tmp_path)
    calls.update(made=0, last=0)
    (folder,) = tmp_path.glob("*/*")
    with pytest.raises(MeshError, match=r"writers\.made: was 'near:Near', is '.*:Other'(?s:.*)put it back"):
        run(table, "step", "together", Other(), resume=folder)
    request = Request(parse(mesh("step", "together", DATA)), "inline", table=table, resume=folder)
    with pytest.raises(MeshError, match=r"streams\.made"):
        run_once(request)
    assert calls["made"] == 0
    assert run(table, "step", "together", Near(), resume=folder) == run(table, "step", "together")


def test_a_period_says_how_often_it_is_written(table: Table) -> None:
    shas = {run(table, refresh, "together")["c"][0] for refresh in ("step", "5 steps", "6 steps", "epoch")}
    assert len(shas) == 3  # an epoch has six steps


class Noted(Near):
    """Keeps what it wrote, by step, for all copies."""

    wrote: ClassVar[dict[int, tuple[Tensor, ...]]] = {}

    def write(self, step: int, agent: Any) -> Any:
        assert not torch.is_grad_enabled() and not agent.module.training
        given = super().write(step, agent)
        self.wrote[step] = tuple(part.clone() for part in given)
        return given


@pytest.mark.parametrize(("refresh", "accumulate", "steps"), [("4 steps", 1, 4), ("2 steps", 3, 6), ("epoch", 1, 6)])
def test_every_reader_gets_what_was_written_last(
    table: Table, refresh: str, accumulate: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Noted.wrote.clear()
    read: dict[int, list[Any]] = {}
    inner = Written.batch

    def batch(self: Written, step: int, size: int, drop_last: bool) -> Any:
        found = inner(self, step, size, drop_last)
        assert found is not None
        read.setdefault(step, []).append((found.x, found.y, self.samples(found.at)))
        return found

    monkeypatch.setattr("kdmesh.engine.trial.rehearse", lambda *given: None)
    monkeypatch.setattr(Written, "batch", batch)
    run(table, refresh, "spread", Noted(), train={"accumulate": accumulate})
    assert sorted(Noted.wrote) == list(range(0, 12, steps)) and sorted(read) == list(range(12))
    for step, found in read.items():
        assert len(found) == 3  # on each host once
        for parts in found:
            assert all(map(torch.equal, parts, Noted.wrote[step - step % steps]))
    given = list(Noted.wrote.values())
    assert not torch.equal(given[0][0], given[-1][0])


def test_it_teaches_as_a_plain_loop_does(table: Table, start: Callable[[kdmesh.Mesh], Any]) -> None:
    Noted.wrote.clear()
    made = kdmesh.Mesh(**{**mesh("step", "together", table), "seed": 3})
    made.writer("made", Noted())
    loop = start(made)
    result = made.run(backend="inline")
    model = loop.modules["c"].train()
    descent = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    for x, y, _ in Noted.wrote.values():
        descent.zero_grad()
        cross_entropy(model(x), y).backward()
        descent.step()
    assert len(Noted.wrote) == 12
    for name, value in result["c"].module.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


class Gives:
    """Gives what a test wants."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def write(self, step: int, agent: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


X, Y, IDS = torch.zeros(SIZE, 8), torch.zeros(SIZE, dtype=torch.int64), torch.arange(SIZE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (X, "it gave a tensor of shape (16, 8), torch.float32, not a tuple of x, y and ids"),
        ((X[:, :5], Y, IDS), "its x is a tensor of shape (16, 5), torch.float32, not samples [16, 8] of torch.float32"),
        ((X[:3], Y[:3], IDS[:3]), "its x is a tensor of shape (3, 8), torch.float32, not samples [16, 8]"),
        ((X.double(), Y, IDS), "torch.float64, not samples"),
        ((X / 0, Y, IDS), "its x is not finite"),
        ((X, None, IDS), "its y is nothing, not labels [16] of torch.int64; or say `labels: false`"),
        ((X, Y.float(), IDS), "its y is a tensor of shape (16,), torch.float32, not labels [16] of torch.int64"),
        ((X, Y + 3, IDS), "its labels are 3 to 3, not 0 to 2"),
        ((X, Y, IDS[:4]), "its ids are a tensor of shape (4,), torch.int64, not one of torch.int64 for each of 16"),
        (ZeroDivisionError("by zero"), "it raised ZeroDivisionError: by zero"),
    ],
)
def test_what_a_writer_must_not_give_is_refused(table: Table, given: Any, said: str) -> None:
    with pytest.raises(RunFailed) as caught:
        run(table, "step", "together", Gives(given))
    text = str(caught.value)
    assert text.startswith("streams.made: the writer of this stream, a Gives, at step 0: ") and said in text
    assert "instead: x, y, ids: a batch of samples" in text


def test_labels_that_the_stream_hides_are_refused(table: Table) -> None:
    fields = mesh("step", "together", DATA)
    fields["streams"]["made"]["labels"] = False
    del fields["flows"][-1], fields["agents"]["c"]
    with pytest.raises(RunFailed, match="it gave labels, and the stream has none"):
        run_once(Request(parse(fields), "inline", table=table, writers={"made": Near()}))
    run_once(Request(parse(fields), "inline", table=table, writers={"made": Gives((X, None, IDS))}))


class Stateful(Near):
    """Its state is no tensors."""

    def state_dict(self) -> Any:
        return {"count": "many"}


def test_a_state_that_no_checkpoint_holds_is_refused(table: Table, tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="the state_dict of its writer, a Stateful, is not tensors by name"):
        run(table, "step", "together", Stateful(), out=tmp_path)


def flows(**last: Any) -> dict[str, Any]:
    fields = mesh("step", "together", DATA)
    fields["flows"][1] = {**fields["flows"][1], **last}
    return fields


def stream(**more: Any) -> dict[str, Any]:
    fields = mesh("step", "together", DATA)
    fields["streams"] = {"made": {**fields["streams"]["made"], **more}}
    return fields


@pytest.mark.parametrize(
    ("fields", "where", "what"),
    [
        (flows(refresh="epoch"), "flows.1.refresh", "so that a cannot publish on it"),
        (flows(refresh="2 steps", stale="recorded"), "flows.1.refresh", "so that a cannot publish on it"),
        (stream(refresh="round"), "streams.made.refresh", "'round' is not a period of a written stream"),
        (stream(shards={"of": ["b", "c"]}), "streams.made.shards", "no meaning on a written stream"),
        (stream(private=True), "streams.made.private", "no meaning on a written stream"),
    ],
)
def test_what_has_no_meaning_on_a_written_stream_is_refused(
    table: Table, fields: dict[str, Any], where: str, what: str
) -> None:
    with pytest.raises(MeshError) as caught:
        run_once(Request(parse(fields), "inline", table=table, writers={"made": Near()}))
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_writers_and_streams_belong_together(table: Table) -> None:
    made = kdmesh.Mesh(**mesh("step", "together", table))
    with pytest.raises(MeshError, match="without prompts and without a writer from Python, is understood, and not run"):
        made.run(backend="inline")
    made.writer("made", Near())
    made.plan()
    made.writer("mode", Near())
    with pytest.raises(MeshError, match="did you mean 'made'"):
        made.plan()
    other = kdmesh.Mesh(**mesh("step", "together", table))
    other.writer("made", Near)
    other.writer("made", object())  # type: ignore[arg-type]  # what a user might give
    with pytest.raises(MeshError, match="its writer is a object, which writes nothing"):
        other.plan()


def test_two_stages_do_not_share_what_is_written(table: Table) -> None:
    fields = frozen("step", "together", DATA)
    fields["agents"]["c"] = {"model": {"mlp": {"hidden": [6]}}}
    fields["flows"].append({"from": "a", "to": "c", "objective": "kl", "stream": "made", "refresh": "step"})
    with pytest.raises(MeshError, match="it is read in several stages, b and c"):
        run_once(Request(parse(fields), "inline", table=table, writers={"made": Near()}))


def test_an_agent_that_writes_is_not_dropped(table: Table) -> None:
    fields = frozen("step", "spread", DATA)
    fields["flows"][1] = {"from": "labels", "to": "b", "objective": "ce", "stream": "made"}
    plan = make_plan(parse(fields), registry())
    assert obstacle(plan, ["a"], plan.stages) == "a writes stream 'made'"


def test_a_writer_is_copied(table: Table) -> None:
    writer = Near()
    first = run(table, "step", "together", writer)
    assert writer.count == 0 and run(table, "step", "together", writer) == first


def test_controls_are_refused(table: Table) -> None:
    with pytest.raises(MeshError, match="without the agents that write their streams"):
        Request(parse(mesh("step", "together", DATA)), table=table, writers={"made": Near()}, controls=True)
