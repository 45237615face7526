"""`placement: auto` and `threads: auto`: what is measured, what comes of it, and that a run's bits do not notice."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.graph.resources import Resources
from kdmesh.placement import settle, timing, workload
from kdmesh.placement.timing import Timing, measure
from kdmesh.spec.read import parse
from kdmesh.spec.train import AUTO

TWO = Resources(2)
FROZEN = {"model": {"mlp": {"hidden": [8]}}, "update": "frozen"}
SLOW = Timing(0.02, 0.02, 0.03, 0.01)


def labels(made: Any, *agents: str) -> None:
    made.flow("labels", list(agents), objective="ce")


def exchanging(mesh: Any, **fields: Any) -> Any:
    """Two peers that hear each other at every step, for many steps."""
    made = mesh(["a", "b"], train={"epochs": 5000, **fields.pop("train", {})}, **fields)
    labels(made, "a", "b")
    made.flow("a", "b", objective="kl", refresh="step")
    made.flow("b", "a", objective="kl", refresh="step")
    return made


def alone(mesh: Any, **fields: Any) -> Any:
    made = mesh(["a", "b"], train={"epochs": 5000, **fields.pop("train", {})}, **fields)
    labels(made, "a", "b")
    return made


def resolved(made: Any, resources: Resources = TWO, inline: bool = False) -> settle.Placed:
    plan = made.plan()
    return settle.resolve(plan, examine(plan, made._modules, made.table), made._modules, resources, inline)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every agent take as long as a test says, with few threads and with all."""

    def pace(few: Timing, every: Timing | None = None) -> None:
        monkeypatch.setattr(settle, "_known", {})
        monkeypatch.setattr(settle, "measure", lambda plan, *_: dict.fromkeys(plan.spec.agents, (few, every or few)))

    return pace


def test_agents_that_are_alike_are_timed_once_and_generators_are_left_as_they_were(
    mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mesh({"a": {}, "b": {}, "frozen": FROZEN, "wide": {"model": {"mlp": {"hidden": [64]}}}})
    labels(made, "a", "b", "wide")
    plan = made.plan()
    found = examine(plan, {}, made.table)
    seen: list[str] = []
    clone = timing._clone
    monkeypatch.setattr(timing, "_clone", lambda *given: seen.append(given[-1]) or clone(*given))
    torch.manual_seed(7)
    random.seed(7)
    expected = torch.rand(3), random.random()
    torch.manual_seed(7)
    random.seed(7)
    paces = measure(plan, found, {}, dict.fromkeys(plan.spec.agents, 1), 2)
    assert torch.equal(torch.rand(3), expected[0]) and random.random() == expected[1]
    assert torch.get_num_threads() == 1
    assert seen == ["a", "frozen", "wide"] and paces["a"] is paces["b"]
    for few, every in paces.values():
        assert min(few.inference, every.inference) > 0
    assert all(min(part) > 0 for part in paces["a"]) and paces["frozen"][0][1:] == (0, 0, 0)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_batches_that_are_mixed_are_timed_too(mesh: Any, mixing: str) -> None:
    view = {"augment": ["shift", {mixing: {"per": "sample"}}]}
    images = kdmesh.data((torch.rand(32, 1, 8, 8), torch.tensor([0, 1] * 16)))
    agents = {"a": {"view": view}, "b": {"view": {"augment": [mixing]}}, "frozen": {**FROZEN, "view": {"of": "a"}}}
    made = mesh(agents, data=images)
    labels(made, "a", "b")
    made.flow("frozen", "a", objective="kl", refresh="step")
    plan = made.plan()
    assert {*plan.mixed} == {"a", "b", "frozen"}
    paces = measure(plan, examine(plan, {}, made.table), {}, dict.fromkeys(plan.spec.agents, 1), 2)
    assert all(min(part) > 0 for agent in "ab" for part in paces[agent]) and paces["frozen"][0].inference > 0


def test_samples_without_labels_are_timed_as_others(mesh: Any) -> None:
    table = kdmesh.data((torch.rand(8, 4), torch.tensor([0, 1] * 4)), transfer=torch.rand(8, 4))
    made = mesh({"a": {}, "teacher": FROZEN}, data=table, train={"batch_size": 4})
    made.flow("teacher", "a", objective="kl", stream="transfer")
    labels(made, "a")
    plan = made.plan()
    found = examine(plan, {}, made.table)
    assert int(found.table.y[timing._rows(plan, found, "a")].max()) < 0
    assert min(measure(plan, found, {}, dict.fromkeys(plan.spec.agents, 1), 2)["a"][0]) > 0


def test_small_peers_share_a_host_and_heavy_ones_do_not(mesh: Any, paced: Any) -> None:
    made = exchanging(mesh)
    paced(Timing(0.0002, 0.0002, 0.0003, 0.0001))
    assert resolved(made).plan.hosts == {"host0": ["a", "b"]}
    paced(SLOW)
    placed = resolved(made)
    assert placed.plan.hosts == placed.plan.spec.placement == {"host0": ["a"], "host1": ["b"]}
    assert placed.plan.host_of == {"a": "host0", "b": "host1"}
    assert "2 agents in 2 groups that stay whole, 2 CPUs" in placed.lines[0]
    assert placed.lines[-1].strip() == "chosen: on 2 hosts: host0 [a], host1 [b]"
    assert placed.facts["seconds"] == min(option["seconds"] for option in placed.facts["options"])


def test_inline_is_together_and_measures_nothing(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "measure", None)
    placed = resolved(alone(mesh), inline=True)
    assert placed.plan.hosts == {"host0": ["a", "b"]} == placed.plan.spec.placement and not placed.lines
    assert resolved(alone(mesh), Resources(1)).plan.hosts == {"host0": ["a", "b"]}


@pytest.mark.parametrize("inline", [True, False])
def test_threads_are_chosen_where_the_file_leaves_them_open(mesh: Any, paced: Any, inline: bool) -> None:
    paced(SLOW, Timing(*(part / 1.9 for part in SLOW)))
    made = exchanging(mesh, train={"threads": "auto"})
    placed = resolved(made, inline=inline)
    assert placed.threads == 2 and placed.plan.train("a").threads == 2 and len(placed.plan.hosts) == 1
    assert placed.plan.resolved().model_dump(mode="json")["train"]["threads"] == 2
    paced(SLOW, SLOW)
    assert resolved(made, inline=True).plan.train("a").threads == 1


def test_threads_that_are_given_stay(mesh: Any, paced: Any) -> None:
    paced(SLOW, Timing(*(part / 1.9 for part in SLOW)))
    made = mesh({"a": {"train": {"threads": 3}}, "b": {}}, train={"threads": "auto", "epochs": 50})
    labels(made, "a", "b")
    plan = resolved(made, inline=True).plan  # more than there are CPUs: inline that is the user's own business
    assert (plan.train("a").threads, plan.train("b").threads) == (3, 2)
    with pytest.raises(MeshError, match=r"nothing fits: .* and 3 CPUs, and there are .* 2 CPUs"):
        resolved(made)


def test_hosts_that_are_given_share_the_cpus(mesh: Any) -> None:
    placed = resolved(exchanging(mesh, train={"threads": "auto"}, placement="spread"))
    assert len(placed.plan.hosts) == 2 and placed.plan.train("a").threads == 1 and not placed.lines


def test_with_one_thread_asked_for_the_rival_is_told(mesh: Any, paced: Any) -> None:
    paced(Timing(*(part / 60 for part in SLOW)), Timing(*(part / 90 for part in SLOW)))  # too little to cross for
    assert any("`train.threads: auto`" in line for line in resolved(exchanging(mesh)).lines)


def test_the_works_of_a_mesh_are_its_steps_and_publications(mesh: Any) -> None:
    made = mesh({"t": FROZEN, "s": {}, "p": {}}, train={"epochs": 2})
    labels(made, "s", "p")
    made.consensus("c", "mean")
    made.flow(["t", "p"], "c", refresh="step")
    made.flow("c", "s", objective="kl")
    made.flow("t", "p", objective="kl", refresh="once")
    plan = made.plan()
    found = examine(plan, {}, made.table)
    paces = dict.fromkeys("tsp", (SLOW, SLOW))
    problem = workload.problem(plan, found, paces, TWO, dict.fromkeys("tsp", 1), None)
    published, phase = problem.workload
    assert not published.pipelined and published.times == 1
    assert published.tasks[0].seconds[0] == pytest.approx(3 * SLOW.inference)  # 90 samples in batches of 32
    assert published.tasks[0].sends == 90 * 3 * 4
    assert phase.times == 2 * 3
    forward, update = ({task.agent: task for task in phase.tasks if bool(task.after) is late} for late in (False, True))
    assert (forward["t"].seconds[0], forward["s"].seconds[0]) == (SLOW.inference, SLOW.forward)
    assert update["s"].seconds[0] == pytest.approx(SLOW.backward + SLOW.update)
    assert (forward["p"].sends, forward["s"].sends) == (32 * 3 * 4, 0)
    assert {phase.tasks[number].agent for number in update["s"].after} == {"s", "t", "p"}  # the consensus is beside it


PARTIES = ["a", "b"]


def federated(mesh: Any, **more: Any) -> Any:
    """Two parties whose weights are averaged in rounds."""
    lines = [{"train": PARTIES, "epochs": 2}, {"publish": PARTIES}, {"publish": ["server"]}]
    program = [{"of": [*PARTIES, "server"], "repeat": 3, "do": [{"repeat": 2, "do": lines}]}]
    made = mesh(
        {"a": {}, "b": {}, "server": {"model": FROZEN["model"], "update": "merged", "init_of": "a"}},
        program=program,
        **more,
    )
    labels(made, *PARTIES)
    made.flow(PARTIES, "server", as_="weights", refresh="round")
    made.flow("server", PARTIES, as_="weights", refresh="round")
    return made


def transferred(made: Any) -> list[Any]:
    """The works of a mesh in which weights flow, as (times, tasks), and each task as (agent, what it waits for)."""
    plan = made.plan()
    found = examine(plan, made._modules, made.table)
    agents = dict.fromkeys(plan.spec.agents, 1)
    problem = workload.problem(plan, found, dict.fromkeys(agents, (SLOW, SLOW)), TWO, agents, None)
    works = [work for work in problem.workload if any(task.sends == found.held["a"][0] for task in work.tasks)]
    assert all(not work.pipelined and task.seconds == (0, 0) for work in works for task in work.tasks)
    assert found.held["a"][0] == 4 * found.parameters["a"]
    return [(work.times, [(task.agent, task.after, task.sends > 0) for task in work.tasks]) for work in works]


def test_weights_that_flow_are_works_too(mesh: Any) -> None:
    up = [("a", (), True), ("b", (), True), ("server", (0, 1), False)]
    down = [("server", (), True), ("a", (0,), False), ("b", (0,), False)]
    assert transferred(federated(mesh)) == [(6, up), (6, down)]


def test_a_consensus_of_weights_is_where_its_first_reader_is(mesh: Any) -> None:
    made = mesh({"a": {}, "b": {"init_of": "a"}, "c": {"init_of": "a"}}, train={"epochs": 4})
    labels(made, "a", "b", "c")
    made.consensus("pool", {"mean": {}}, include_self=False)
    made.flow(["a", "b", "c"], "pool", as_="weights", refresh="2 steps")
    made.flow("pool", ["a", "b"], as_="weights")
    own = [("b", (), True), ("c", (), True), ("a", (0, 1), True), ("a", (), True), ("a", (3, 1), True)]  # for a, for b
    assert transferred(made) == [(4 * 3 // 2, [*own, ("a", (2,), False), ("b", (4,), False)])]


def test_where_much_weight_flows_agents_stay_together(mesh: Any, paced: Any) -> None:
    paced(SLOW)
    found = []
    for refresh in ("1 steps", "epoch"):
        made = mesh({"a": {}, "b": {"init_of": "a"}}, train={"epochs": 500})
        labels(made, "a", "b")
        for one, other in (("a", "b"), ("b", "a")):
            made.flow(one, other, as_="weights", refresh=refresh)
        plan = made.plan()
        checked = examine(plan, {}, made.table)
        checked.held.update(dict.fromkeys("ab", (2 * 10**7, 0)))  # 60 ms to cross, as a step takes
        made = settle.resolve(plan, checked, {}, Resources(2)).plan.hosts
        found.append(len(made))
    assert found == [1, 2]


def test_memory_counts_gradients_and_what_the_optimiser_keeps(mesh: Any) -> None:
    adam, momentum = {"adamw": {"lr": 0.1}}, {"sgd": {"lr": 0.1, "momentum": 0.9}}
    optimizers = {"plain": {"sgd": {"lr": 0.1}}, "adam": adam, "momentum": momentum}
    made = mesh({name: {"train": {"optimizer": value}} for name, value in optimizers.items()} | {"f": FROZEN})
    labels(made, *optimizers)
    plan = made.plan()
    found = examine(plan, {}, made.table)
    weights = workload.memory(plan, found, ["f"])
    assert weights == 4 * found.parameters["f"]
    assert [workload.memory(plan, found, [name]) / weights for name in optimizers] == [2, 4, 3]
    assert workload.memory(plan, found, ["plain", "adam"]) == 6 * weights


def test_what_needs_more_than_there_is_is_refused_with_the_numbers(mesh: Any, paced: Any) -> None:
    paced(SLOW)
    small = Resources(2, memory=3e8)
    assert resolved(alone(mesh), small).plan.hosts == {"host0": ["a", "b"]}  # two processes do not fit
    with pytest.raises(MeshError, match=r"nothing fits: the agents take 0\.26 GB on one host .* there are 0\.19 GB"):
        resolved(alone(mesh), Resources(2, memory=2e8))
    with pytest.raises(
        MeshError, match=r"the hosts take 0\.53 GB of memory \(host0 0\.26, host1 0\.26\), and there are 0\.28"
    ):
        resolved(alone(mesh, placement="spread"), small)
    for unit, asked, what in (("cpus", 3, "3 CPUs"), ("gpus", 0.5, "0.5 GPUs")):
        made = alone(mesh, placement={"h": {"agents": ["a", "b"], unit: asked}})
        with pytest.raises(MeshError, match=rf"the hosts ask for {what} \(h {asked}\), and there are"):
            resolved(made)


def test_a_run_keeps_what_was_chosen_and_its_bits_do_not_notice(mesh: Any, paced: Any, tmp_path: Any) -> None:
    paced(SLOW, Timing(*(part / 1.9 for part in SLOW)))
    made = exchanging(mesh, train={"threads": "auto", "epochs": 2})
    result = made.run(backend="inline", out=tmp_path)
    assert result.folder is not None
    kept = json.loads((result.folder / "placement.json").read_text())
    assert kept["threads"] == {"a": kept["all_threads"], "b": kept["all_threads"]} or kept["all_threads"] == 1
    events = [json.loads(line) for line in (result.folder / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "placed" and events[0]["lines"]
    again = kdmesh.Mesh.read(result.folder / "resolved.yaml", data=made.table)
    assert again.plan().spec.placement == {"host0": ["a", "b"]}
    assert again.plan().train("a").threads == kept["threads"]["a"]
    shas = {name: agent.weights_sha256 for name, agent in result.agents.items()}
    assert {name: agent.weights_sha256 for name, agent in again.run(backend="inline").agents.items()} == shas


def test_measuring_changes_no_bit(mesh: Any, hashes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = exchanging(mesh, train={"epochs": 2})
    expected = hashes(made)
    plan = made.plan()
    found = examine(plan, {}, made.table)

    def resolve(*_: Any) -> settle.Placed:
        measure(plan, found, {}, {"a": 1, "b": 1}, 2)
        return settle.Placed(plan)

    monkeypatch.setattr(settle, "resolve", resolve)
    assert hashes(made) == expected


def test_auto_threads_are_written_as_such_and_none_is_no_number() -> None:
    agents = {"a": {"model": "mlp", "train": {"threads": "auto"}}, "b": {"model": "mlp"}}
    spec = parse({"agents": agents, "train": {"threads": 3}})
    assert spec.dump()["agents"]["a"]["train"] == {"threads": "auto"}
    assert spec.agents["a"].train.over(spec.train).threads == AUTO
    assert spec.agents["b"].train.over(spec.train).threads == 3
    for wrong in (0, -1, "all", False):
        with pytest.raises(MeshError) as caught:
            parse({"agents": agents, "train": {"threads": wrong}})
        assert caught.value.where == "train.threads"
