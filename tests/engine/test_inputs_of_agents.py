"""Flows `as: input` into agents: the bits of plain loops, on one host and several, broken off and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import seeing
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse
from kdmesh.streams.order import epoch_order
from kdmesh.streams.table import Table

DATA = {"dataset": "python:given"}
MakeStart = Callable[[kdmesh.Mesh], Any]


def features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a model's first layer gives, and its logits."""
    kept: list[Tensor] = []
    layer = model.get_submodule("layers.0")
    hook = layer.register_forward_hook(lambda module, given, value: kept.append(value))
    logits = model(x)
    hook.remove()
    return kept[0], logits


@torch.no_grad()
def whole(model: nn.Module, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same of a whole stream in eval mode, in batches of one size, the last filled up with its last sample."""
    parts = []
    for part in x.split(size):
        missing = size - len(part)
        full = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        parts.append([value[: len(part)] for value in features(model, full)])
    first, logits = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(logits)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_div(log_softmax(student / 3, -1), softmax(teacher / 3, -1), reduction="batchmean") * 9


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def refuse_unlike(result: kdmesh.Result, modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        ours, theirs = result[name].module.state_dict(), module.state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), (name, key)


def test_group_knowledge_transfer_is_a_plain_loop(table: Table, start: MakeStart) -> None:
    """Features are a server's inputs; its logits come back a round later."""
    made = kdmesh.Mesh(**seeing.gkt("spread", table))
    loop = start(made)
    x, y = loop.x, loop.y
    clients, server = [loop.modules["one"], loop.modules["two"]], loop.modules["on_one"]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, fused=True) for model in (*clients, server)]

    def batches(first: int, count: int) -> list[Tensor]:
        orders = [epoch_order(0, "train", first + epoch, len(x)) for epoch in range(count)]
        return [at for order in orders for at in order.split(32)]

    back: list[Tensor] = []
    for round_ in range(3):
        for at in batches(round_, 1):
            for number, client in enumerate(clients):
                logits = client(x[at])
                loss = cross_entropy(logits, y[at])
                descend(optimizers[number], loss + kl(logits, back[number][at]) if back else loss)
        sent = [whole(client, x, 32) for client in clients]
        for at in batches(2 * round_, 2):
            answers = [server(seen[at]) for seen, _ in sent]
            total = cross_entropy(answers[0], y[at]) + cross_entropy(answers[1], y[at])
            for answer, (_, logits) in zip(answers, sent, strict=True):
                total = total + kl(answer, logits[at])
            descend(optimizers[2], total)
        back = [whole(server, seen, 32)[1] for seen, _ in sent]
    result = made.run(backend="inline")
    refuse_unlike(result, {"one": clients[0], "two": clients[1], "on_one": server, "on_two": server})
    test = loop.found.table.x[loop.found.streams["test"].rows]
    truth = loop.found.table.y[loop.found.streams["test"].rows]
    for client, view in zip(clients, ("on_one", "on_two"), strict=True):  # a view is measured on what its client says
        seen, _ = whole(client, test, 32)
        right = (whole(server, seen, 256)[1].argmax(1) == truth).double().mean().item()
        assert result[view].metrics["test"]["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("detach", [False, True])
def test_two_halves_are_one_network(table: Table, start: MakeStart, detach: bool) -> None:
    made = kdmesh.Mesh(**seeing.split("together", table, detach))
    loop = start(made)
    body, head = loop.modules["body"], loop.modules["head"]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, fused=True) for model in (body, head)]
    for at in loop.batches(2):
        seen, logits = features(body, loop.x[at])
        first = cross_entropy(logits, loop.y[at])
        second = cross_entropy(head(seen.detach() if detach else seen), loop.y[at])
        for optimizer in optimizers:
            optimizer.zero_grad()
        (first + second).backward()
        for optimizer in optimizers:
            optimizer.step()
    refuse_unlike(made.run(backend="inline"), {"body": body, "head": head})


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many chunks were run, and before which one to break off; checkpoints after every step."""
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    known = {"made": 0, "last": 0}
    inner = InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        known["made"] += method == "run"
        if known["last"] and known["made"] == known["last"]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


def run(fields: Any, table: Table, **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    summary = run_once(Request(parse(fields), "inline", table=table, checkpoint_seconds=0, **more))[0]
    return {name: (one["weights_sha256"], one["forwards"], one["metrics"]) for name, one in summary["agents"].items()}


def live(placement: Any, data: Any) -> dict[str, Any]:
    return seeing.split(placement, data, detach=True, epochs=4)


def chained(placement: Any, data: Any) -> dict[str, Any]:
    """A student of what sees what another says, which has finished; and an agent that sees what is published anew."""
    fields = live(placement, data)
    fields["agents"] |= {"student": {"model": {"mlp": {"hidden": [4]}}}, "tail": {"model": {"mlp": {"hidden": [4]}}}}
    fields["flows"][1] |= {"refresh": "epoch"}
    fields["flows"] += [
        {"from": "head", "to": "student", "objective": "kl"},
        {"from": "head", "to": "tail", "as": "input", "refresh": "2 steps"},
        {"from": "labels", "to": "tail", "objective": "ce"},
    ]
    return fields


@pytest.mark.parametrize("fields", [seeing.gkt, live, chained])
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    table: Table, fields: Any, tmp_path: Path, calls: dict[str, int]
) -> None:
    expected: dict[str, Any] = {}
    for placement, parts in (("together", (2, 3)), ("spread", (2,))):
        calls.update(made=0, last=0)
        found = run(fields(placement, DATA), table)
        expected = expected or found
        assert found == expected
        total = calls["made"]
        for part in parts:
            calls.update(made=0, last=total * part // 4 + 1)
            out = tmp_path / f"{placement}{part}"
            with pytest.raises(KeyboardInterrupt):
                run(fields(placement, DATA), table, out=out)
            calls.update(made=0, last=0)
            (folder,) = out.glob("*/*")
            assert run(fields(placement, DATA), table, resume=folder) == expected
            assert 0 < calls["made"] < total
