"""A short, seeded part of `make chaos`: some die, and the weights are those of an unbroken run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import PATIENCE, processes
from left import holders
from points import KINDS, VICTIMS, Counts, Deaths, Point, deaths, mortal
from schedule import SHARES, Call, Unbroken, draw, mesh, outcome

from kdmesh.contracts.events import Dropped
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.fragment import Fragment
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.backends import Session
    from kdmesh.spec import MeshSpec

CASES = [  # who dies as a call is queued, a driver or a node, does below
    (Point("deep-mutual", "exchange", 100, "host1", "host", after=True),),
    (Point("council", "evaluation", 1, "students", "two", second="three"),),
    (Point("mean-teacher", "checkpoint", 2, "host0", "host"),),
]


@pytest.fixture(scope="module")
def home(ray_session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the session's workers look up when to die; those that live are kept from test to test."""
    folder = tmp_path_factory.mktemp("chaos")
    with mortal(ray_session, folder):
        yield folder


@pytest.mark.ray
@pytest.mark.parametrize("dying", CASES, ids=lambda dying: dying[0].topology)
def test_hosts_that_die_change_no_bit(dying: tuple[Point, ...], home: Path, ray_session: Session) -> None:
    spec = mesh(dying[0].topology)
    expected = outcome(run_once(Request(spec, "inline"))[0])
    events: Counter[str] = Counter()
    listen = (lambda event: events.update([event.kind]),)
    with deaths(ray_session, home, spec.name, dying) as planned:
        request = Request(spec, checkpoint_seconds=0.5, listeners=listen)
        summary, _, _ = run_once(request, session=ray_session)
    assert outcome(summary) == expected
    assert len(planned.happened()) == len(dying) and events["host_lost"] >= len(dying)


@pytest.mark.ray
def test_a_teacher_that_is_dropped_leaves_the_others_as_if_it_had_never_been(
    tmp_path: Path, home: Path, ray_session: Session
) -> None:
    """Its host dies when the student's stage begins; the student hears the mean of those that are left."""
    never, spec = ensemble("t1", "t3"), ensemble("t1", "t2", "t3")
    expected = run_once(Request(never, "inline"))[0]
    (host,) = [host for host, agents in make_plan(spec, registry()).hosts.items() if agents == ["t2"]]
    told: list[dict[str, Any]] = []
    publishes = Point("ensemble", "exchange", 1, host, "host")
    with deaths(ray_session, home, "dropped", (publishes,)) as planned:
        request = Request(spec, out=tmp_path / "runs", listeners=(told.append,))
        summary, folder, _ = run_once(request, session=ray_session)
    assert planned.happened() == ["publish"]
    assert [event.agents for event in told if isinstance(event, Dropped)] == [["t2"]]
    assert folder is not None and (folder.root / "drops.json").exists()
    agents = summary["agents"]
    assert agents["t2"]["dropped"] and agents["t2"]["weights_sha256"] is None
    assert {name: agents[name]["weights_sha256"] for name in expected["agents"]} == {
        name: agent["weights_sha256"] for name, agent in expected["agents"].items()
    }


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("dying", [("driver",), pytest.param(("node", "driver"), marks=pytest.mark.slow)], ids="-".join)
def test_a_driver_dies_and_nothing_stays(tmp_path: Path, dying: tuple[str, ...]) -> None:
    """`make chaos` itself, with one point or two, in a folder for temporary files of its own.

    That the death of a node costs no bit is in test_ray_cluster.py, too.
    """
    name, value = "KDMESH_TEST_MARK", os.urandom(16).hex()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))  # a short path: sockets are in it
    shares = [word for victim in VICTIMS for word in (f"--{victim}", str(int(victim in dying)))]
    command = [sys.executable, str(Path(__file__).with_name("long.py")), "--no-page", *shares]
    try:
        done = subprocess.run(
            [*command, "--topologies", "stale-codistillation"],
            env={**os.environ, "TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), name: value},
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        assert f"{len(dying)} of {len(dying)} points end with the unbroken run's weights and metrics" in done.stdout
        assert done.stdout.rstrip().endswith("left behind: nothing")
        assert processes(f"{name}={value}") == holders(str(folder)) == {}
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


def ensemble(*teachers: str) -> MeshSpec:
    """Teachers that say `drop` and a student, apart."""
    model = {"model": {"mlp": {"hidden": [8]}}}
    return parse(
        {
            "name": "ensemble",
            "data": {"dataset": "digits", "train": 200},
            "agents": {**{name: {**model, "on_loss": "drop"} for name in teachers}, "s": model},
            "connect": [{"ensemble": {"teachers": list(teachers), "students": ["s"]}}],
            "train": {"epochs": 2},
            "placement": "spread",
        }
    )


def test_points_are_drawn_by_a_seed_and_spread() -> None:
    methods = {"queue": "begin", "exchange": "publish", "checkpoint": "save", "evaluation": "evaluate_consensus"}
    calls = [Call(host, methods[kind], kind, n) for host in "abc" for kind in KINDS for n in range(1, 9)]
    alone = [call for call in calls if call.host == "a" and call.kind != "exchange"]
    runs = {"three": Unbroken(calls, {}), "two": Unbroken(calls[: 2 * len(calls) // 3], {}), "one": Unbroken(alone, {})}
    drawn = draw(runs, 1)
    assert drawn == draw(runs, 1) != draw(runs, 2)
    assert len(set(map(str, drawn))) == 50
    assert Counter(point.victim for point in drawn) == SHARES
    for point in drawn:
        assert any(
            (point.host, point.kind, point.number) == (c.host, c.kind, c.number) for c in runs[point.topology].calls
        )
        assert bool(point.second) == (point.victim == "two") and point.second != point.host
    for victim in VICTIMS:
        assert {point.kind for point in drawn if point.victim == victim} == set(KINDS)


def test_a_points_name_says_when_whom() -> None:
    queued = Point("council", "queue", 40, "students", "two", second="three")
    assert [str(point) for point in (*CASES[0], *CASES[2], queued)] == [
        "exchange 100 of deep-mutual, host1 dies after it",
        "checkpoint 2 of mean-teacher, host0 dies before it",
        "queue 40 of council, host students and host three die as it is queued",
    ]
    driver = Point("ensemble", "checkpoint", 2, "host0", "driver", after=True)
    assert str(driver) == "checkpoint 2 of host0 of ensemble, the driver dies before its manifest"


def test_calls_are_counted_by_kind_whatever_the_speed_of_a_lone_host() -> None:
    alone, crossing = Fragment("a", "s", 0), Fragment("a", "s", 0, exports={3: []})
    counts = Counts()
    for method, args, expected in (
        ("sees", (), {}),
        ("begin", (), {"queue": 1}),
        ("run", (alone,), {"queue": 2}),
        ("run", (alone,), {}),  # how many there are depends on the clock
        ("run", (crossing,), {"exchange": 1, "queue": 3}),
        ("run", (alone, "what another host sent"), {"exchange": 2, "queue": 4}),
        ("save", (), {"checkpoint": 1}),  # so does how many are written
        ("evaluate_consensus", (), {"evaluation": 1, "queue": 5}),
    ):
        assert counts.note("a", method, args) == expected
    assert counts.note("b", "publish", ()) == {"exchange": 1, "queue": 1}


def test_somebody_dies_once_at_a_point(tmp_path: Path) -> None:
    planned = Deaths.plan(tmp_path / "run", (CASES[0][0],))
    at = {"driver": False, "after": True}
    assert planned.due({"exchange": 99}, "host1", KINDS, **at) == []
    assert planned.due({"exchange": 100}, "host0", KINDS, **at) == []
    assert planned.due({"exchange": 101}, "host1", KINDS, **at) == [0]
    assert planned.due({"exchange": 100}, "host1", KINDS, driver=False, after=False) == []
    (planned.folder / "died-0").write_text("publish")
    assert planned.due({"exchange": 101}, "host1", KINDS, **at) == []
    assert Deaths(planned.folder).happened() == ["publish"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for processes in /proc")
def test_a_process_that_has_a_file_open_is_found(tmp_path: Path) -> None:
    waits = "import sys; kept = open(sys.argv[1], 'w'); print('up', flush=True); input()"
    command = [sys.executable, "-c", waits, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        (tmp_path / "log").unlink()  # it is still held
        assert list(holders(str(tmp_path))) == [child.pid]
        child.communicate("\n")
    assert holders(str(tmp_path)) == {}
