"""Curves of losses by flow: against a plain loop, under any placement, and how many points there are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdmesh.contracts.events import Trained
from kdmesh.contracts.run_files import LOG
from kdmesh.engine.curves import Curve
from kdmesh.files import to_json
from kdmesh.graph.edges import flow_names
from kdmesh.hosts.step import Line, Losses, Wrote
from kdmesh.hosts.update import Update
from kdmesh.report.log import Log


def told(made: Any, out: Path) -> list[Trained]:
    folder = Path(made.run(backend="inline", out=out).folder)
    return [event for event in Log.read(folder / LOG).events if isinstance(event, Trained)]


def test_losses_are_those_of_a_plain_loop(mesh, start, tmp_path):
    made = mesh(["a"], train={"epochs": 2, "batch_size": 32}, seed=5)
    begin = start(made)
    module, expected = begin.modules["a"], []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for at in begin.batches(2):
        loss = F.cross_entropy(module(begin.x[at]), begin.y[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    points = told(made, tmp_path)
    means = [sum(expected[:3]) / 3, sum(expected[3:]) / 3]
    assert [(point.step, point.epoch) for point in points] == [(3, 1), (6, 2)]
    assert [point.losses["a"] for point in points] == pytest.approx(means, rel=1e-6)
    assert [point.flows["a"]["labels -> a"] for point in points] == pytest.approx(means, rel=1e-6)


def test_points_are_equal_together_and_spread_and_add_up(mesh, tmp_path):
    def points(placement: str) -> list[Any]:
        made = mesh(["a", "b", "c"], placement=placement, train={"steps": 40, "batch_size": 16})
        made.connect("mutual", peers=["a", "b", "c"])
        return [(one.stage, one.step, one.epoch, one.losses, one.flows) for one in told(made, tmp_path / placement)]

    together = points("together")
    steps = sorted({6, 12, 18, 24, 30, 36} | {16, 32} | {40})  # ends of epochs, every 16th, the end
    assert together == points("spread") and [step for _, step, *_ in together] == steps
    *_, losses, flows = together[-1]
    assert sorted(flows["a"]) == ["b -> a", "c -> a", "labels -> a"]
    assert {agent: sum(own.values()) for agent, own in flows.items()} == pytest.approx(losses)


def points_of(total: int, epoch: int) -> list[Trained]:
    edges = [Edges(0, "labels", "a"), Edges(1, "t", "a")]
    curve = Curve("s", edges, total)  # type: ignore[arg-type]
    found: list[Trained] = []
    for first in range(0, total, 7):  # as chunks happen to be cut
        last = min(first + 7, total)
        losses = [Losses(step, (0, 1), (1.0, None if step % 2 else 3.0)) for step in range(first, last)]
        found += curve.add(losses, [], first, last, first, first, epoch)
        curve = Curve("s", edges, total, curve.state())  # type: ignore[arg-type]  # as a checkpoint has it
    return [*found, *curve.rest(total)]


class Edges:
    """What a curve asks of a flow."""

    def __init__(self, number: int, source: str, target: str, stream: str = "train") -> None:
        self.id, self.source, self.target, self.stream, self.objective = number, source, target, stream, None

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def test_a_long_stage_has_a_bounded_number_of_points():
    points = points_of(1000, 62)
    assert len(points) == 1000 // 16 + 16 - 2 + 1  # 2 ends of epochs meet a point, and a rest
    assert [point.step for point in points if point.epoch] == [62 * number for number in range(1, 17)]
    assert points[0].flows == {"a": {"labels -> a": 1.0, "t -> a": 3.0}}
    assert points[0].losses["a"] == (16 * 1.0 + 8 * 3.0) / 16  # a flow may have no loss in some steps
    assert len(points_of(4000, 630)) == 200 + 6 - 3
    assert len(points_of(2003, 2)) == 126  # 125 points and a rest: there are too many epochs to tell of each end
    assert [point.step for point in points_of(12, 3)] == [3, 6, 9, 12]  # short epochs, few of them


def test_a_loss_that_is_not_finite_survives_a_checkpoint():
    edges = [Edges(0, "labels", "a")]
    curve = Curve("s", edges, 3)  # type: ignore[arg-type]
    assert not [*curve.add([Losses(0, (0,), (math.inf,))], [], 0, 1, 0, 0, 3)]
    kept = json.loads(to_json(curve.state()))
    again = Curve("s", edges, 3, kept)  # type: ignore[arg-type]
    (point,) = again.add([Losses(1, (0,), (1.0,)), Losses(2, (0,), (1.0,))], [], 1, 3, 1, 1, 3)
    assert kept["flows"] == [[0, None, 1]] and math.isnan(point.losses["a"])


def test_rewards_are_those_of_the_texts_since_the_last_point():
    """However chunks are cut, over a checkpoint too; texts that are written once have no curve."""
    worth = [[1.0, None, 0.5], [], [0.25], [None], [2.0, 4.0], [0.0]]
    wrote = {2 * step: wrote_at(2 * step, rewards) for step, rewards in enumerate(worth)}
    found = []
    for sizes in ((12,), (5, 7), (1,) * 12):
        curve, first, points = Curve("s", [], 12), 0, []
        for size in sizes:
            own = [wrote[step] for step in range(first, first + size) if step in wrote]
            own += [wrote_at(0, [9.0])._replace(phase="once")] if first == 0 else []
            points += curve.add([], own[::-1], first, first + size, first, first, 6)
            curve = Curve("s", [], 12, json.loads(to_json(curve.state())))
            first += size
        found.append([(one.step, one.rewards) for one in [*points, *curve.rest(12)]])
    assert found[0] == [(6, {"r": 1.75 / 3}), (12, {"r": 2.0})] and found[0] == found[1] == found[2]


def wrote_at(step: int, rewards: list[float | None]) -> Wrote:
    lines = [Line(0, draw, "", "", 1, True, "", "", reward=reward) for draw, reward in enumerate(rewards)]
    return Wrote("r", "a", "", step, 0, "", lines, 0)


def test_flows_between_the_same_two_have_names_of_their_own():
    edges = [Edges(3, "t", "s"), Edges(4, "t", "s"), Edges(5, "u", "s")]
    assert flow_names(edges) == {3: "t -> s", 4: "t -> s (2)", 5: "u -> s"}  # type: ignore[arg-type]


def test_losses_that_stay_on_a_device_are_read_together():
    update = Update.__new__(Update)
    update._by_flow = [(0, (1, 2), [torch.tensor(0.5), None]), (1, (1, 2), [0.25, torch.tensor(2.0)])]
    assert update.told() == [Losses(0, (1, 2), (0.5, None)), Losses(1, (1, 2), (0.25, 2.0))]
    assert update.told() == []
