"""Placement as a problem of its own: what every answer keeps to, and what a few known runs ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.graph.resources import Resources
from kdmesh.placement.assign import WIN, CostModel, Model, Problem, Task, Work, solve


def task(agent, ms, *after, sends=2560, every=None):
    return Task(agent, (ms / 1000, (ms if every is None else every) / 1000), after, sends)


def made(workload, agents, cpus=2, **more):
    groups = tuple((agent,) for agent in agents)
    waits = {work.stage: frozenset() for work in workload}
    given = {"groups": groups, "waits": waits, "resources": Resources(cpus), "threads": dict.fromkeys(agents, 1)}
    return Problem(workload=tuple(workload), **{**given, "costs": CostModel(crowd=1), **more})


def peers(ms, every=None, times=2000):
    """Two that hear each other at every step."""
    forward, update = 0.4 * ms, 0.6 * ms
    all_ = (None, None) if every is None else (0.4 * every, 0.6 * every)
    forwards = [task(name, forward, every=all_[0]) for name in "ab"]
    updates = [task(name, update, 0, 1, sends=0, every=all_[1]) for name in "ab"]
    return Work("s", times, (*forwards, *updates))


def one_way(teacher, student, times=2000):
    """A teacher that trains too, and a student that reads it at every step."""
    forwards = [task("t", 0.4 * teacher), task("s", 0.4 * student)]
    updates = [task("t", 0.6 * teacher, 0, sends=0), task("s", 0.6 * student, 0, 1, sends=0)]
    return Work("s", times, (*forwards, *updates))


def test_small_peers_that_exchange_at_every_step_share_a_host():
    answer = solve(made([peers(0.7)], "ab"))
    assert answer.placement == {"host0": ["a", "b"]}
    spread = next(option for option in answer.options if option.hosts == 2)
    assert spread.seconds > 2 * answer.chosen.seconds


def test_heavy_peers_are_spread():
    answer = solve(made([peers(60)], "ab"))
    assert answer.placement == {"host0": ["a"], "host1": ["b"]}
    costs = CostModel()
    assert answer.chosen.seconds == pytest.approx(2000 * (0.060 + costs.call + costs.hop) + costs.start, rel=0.02)


def test_hosts_that_compute_at_once_take_longer_than_alone():
    alone, crowded = (Model(made([one_way(50, 50)], "ts", costs=CostModel(crowd=crowd))) for crowd in (1, 1.2))
    together, apart = (0, 0), (0, 1)
    assert crowded.seconds(together) == alone.seconds(together)
    extra = 0.2 * 2000 * 0.050
    assert crowded.seconds(apart) == pytest.approx(alone.seconds(apart) + extra)
    assert solve(made([peers(60, every=35)], "ab", all_threads=2)).placement == {"host0": ["a"], "host1": ["b"]}
    assert solve(made([peers(60, every=35)], "ab", all_threads=2, costs=CostModel(crowd=1.2))).chosen.all


def test_heavy_peers_stay_together_where_all_threads_are_as_fast():
    problem = made([peers(60, every=30)], "ab", all_threads=2)
    answer = solve(problem)
    assert answer.chosen.all and answer.placement == {"host0": ["a", "b"]}
    assert not solve(replace(problem, all_threads=None)).chosen.all


def test_more_threads_that_win_little_are_not_taken():
    assert not solve(made([peers(1.0, every=0.97)], "ab", all_threads=2)).chosen.all


def test_independent_heavy_teachers_are_spread_evenly():
    workload = [Work(name, 1000, (task(name, 24), task(name, 36, 0, sends=0))) for name in "abcd"]
    answer = solve(made(workload, "abcd"))
    assert sorted(map(len, answer.placement.values())) == [2, 2]
    assert answer.chosen.seconds == pytest.approx(2 * 1000 * 0.060 + 2.5)


def test_a_heavy_teacher_runs_ahead_of_its_heavy_student():
    answer = solve(made([one_way(60, 50)], "ts"))
    assert answer.placement == {"host0": ["t"], "host1": ["s"]}
    assert answer.chosen.seconds == pytest.approx(2000 * 0.060 + 2.5, rel=0.01)  # the slower side counts


def test_stages_with_a_path_between_them_gain_nothing_from_a_host_of_their_own():
    workload = [Work(name, 1000, (task(name, 60),)) for name in "ts"]
    answer = solve(made(workload, "ts", waits={"t": frozenset(), "s": frozenset("t")}))
    assert answer.placement == {"host0": ["t", "s"]}


def test_a_short_run_is_not_worth_a_process():
    assert solve(made([peers(60, times=20)], "ab")).chosen.hosts == 1
    assert solve(made([peers(60, times=20)], "ab", costs=CostModel(start=0))).chosen.hosts == 2


def test_publications_of_several_sources_are_made_at_the_same_time():
    sources = [task(name, 40_000, sends=0) for name in "ab"]
    work = Work("s", 1, (*sources, task("s", 0, 0), task("s", 0, 1)), pipelined=False)
    answer = solve(made([work], "abs"))
    assert answer.placement["host0"][0] == "a" and "b" in answer.placement["host1"]
    assert answer.chosen.seconds == pytest.approx(42.5, abs=0.1)


def test_what_has_no_room_is_not_placed():
    problem = made([peers(60)], "ab", memory=(3e9, 3e9), process=1e9)
    assert solve(replace(problem, resources=Resources(2, memory=7e9))).chosen.hosts == 1
    assert solve(replace(problem, resources=Resources(2, memory=6e9))) is None
    assert solve(replace(problem, resources=Resources(2, memory=9e9, node_cpus=1, node_memory=4e9))).chosen.hosts == 2
    assert solve(replace(problem, on_gpu=frozenset("ab"))) is None
    assert solve(replace(problem, on_gpu=frozenset("ab"), resources=Resources(2, gpus=1))).chosen.hosts == 1


@st.composite
def problems(draw):
    groups, names = [], iter("abcdefgh")
    for size in draw(st.lists(st.integers(1, 2), min_size=1, max_size=4)):
        groups.append(tuple(next(names) for _ in range(size)))
    agents = [agent for group in groups for agent in group]
    stages = [f"s{number}" for number in range(draw(st.integers(1, 3)))]
    workload = []
    for stage in stages:
        tasks: list[Task] = []
        for _ in range(draw(st.integers(1, 5))):
            before = draw(st.sets(st.integers(0, max(0, len(tasks) - 1)), max_size=2)) if tasks else set()
            ms = draw(st.floats(0, 100))
            every = ms * draw(st.floats(0.4, 1.2))
            tasks.append(task(draw(st.sampled_from(agents)), ms, *sorted(before), every=every))
        workload.append(Work(stage, draw(st.integers(1, 500)), tuple(tasks), draw(st.booleans())))
    waits = {stage: frozenset(draw(st.sets(st.sampled_from(stages[:at])))) if at else frozenset()
             for at, stage in enumerate(stages)}  # fmt: skip
    return Problem(
        tuple(groups), tuple(workload), waits, Resources(draw(st.integers(1, 4))), dict.fromkeys(agents, 1),
        draw(st.sampled_from([None, 2])),
    )  # fmt: skip


@given(problems())
def test_every_answer_places_each_agent_once_whole_and_never_worse_than_together(problem):
    answer = solve(problem)
    placed = [agent for agents in answer.placement.values() for agent in agents]
    assert sorted(placed) == sorted(agent for group in problem.groups for agent in group)
    for group in problem.groups:
        assert sum(set(group) <= set(agents) for agents in answer.placement.values()) == 1
    assert len(answer.placement) == answer.chosen.hosts <= problem.resources.cpus
    together = [option.seconds for option in answer.options if option.hosts == 1]
    assert answer.chosen.seconds <= together[0]
    assert answer.chosen.hosts == 1 or answer.chosen.seconds < together[0] * (1 - WIN)


@given(problems())
def test_a_run_is_never_shorter_than_its_longest_host(problem):
    model = Model(replace(problem, costs=CostModel(start=0)))
    assignment = tuple(number % problem.resources.cpus for number in range(len(problem.groups)))
    loads: dict[int, float] = {}
    for load, home in zip(problem.loads, assignment, strict=True):
        loads[home] = loads.get(home, 0.0) + load
    assert model.seconds(assignment) >= max(loads.values()) - 1e-9
    assert model.seconds((0,) * len(assignment)) == pytest.approx(sum(problem.loads))
