"""Parties in their own processes that decline, are killed, stay away and come back, and a coordinator that is killed.

A run ends whatever happens to them. Where all take part in all rounds its weights are those of an undisturbed run;
where a round goes on without some, those of a simulation in which the same took part.
"""

from __future__ import annotations

import random
import re
import signal
import time

import pytest
from apart import PATIENCE, begin, coordinate, data_of, hashes_of, lay_out, party, simulate, summary, until
from sklearn.datasets import load_digits

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHARES = {
    "north": (range(300, 700), {0, 1, 2, 3}),
    "south": (range(700, 1100), {3, 4, 5, 6}),
    "east": (range(1100, 1400), {6, 7, 8, 9}),
}
AGENTS = dict(zip(SHARES, "abc", strict=True))
KILLS = 30


def mesh_of(rounds, counted=None, **participation):
    def mesh(path):
        settings = {"students": [*AGENTS.values()], "objective": {"kl": {"temperature": 1}}, "rounds": rounds}
        return {
            "name": "clinics",
            "data": {"dataset": data_of("public.csv"), "transfer": 0.3},
            "agents": {agent: {"model": {"mlp": {"hidden": [8 + 4 * at]}}} for at, agent in enumerate("abc")},
            "parties": {
                name: {"agents": [agent], "data": data_of(path(name))}
                | ({} if counted is None else {"samples": counted[name]})
                for name, agent in AGENTS.items()
            },
            "participation": participation,
            "connect": [{"rounds": {**settings, "labels_stream": "own", "local_epochs": 10, "consensus": "mean"}}],
            "train": {"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}},
        }

    return mesh


def attended(found):
    return [one["attended"] for one in found["rounds"]]


def replay(place, out):
    """A simulation in which the same take part."""
    (root,) = (place / "coordinator" / out).glob("clinics/*")
    return simulate(place, "replayed", "--attendance", str(root))


def test_who_declines_or_drops_out_is_not_in_the_round_and_comes_back(tmp_path):
    place = tmp_path
    lay_out(place, SHARES, mesh_of(12, quorum=2))
    coordinator, address = coordinate(place, "out")
    more = {"south": ("--decline", "2,4-5")}
    parties = {name: party(place, name, address, "mine", *more.get(name, ())) for name in SHARES}
    until(coordinator, r"round 6/12")
    parties["east"].send_signal(signal.SIGKILL)
    parties["east"].wait()
    until(coordinator, r"round 8/12")
    parties["east"] = party(place, "east", address, "mine")
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found = summary(place, "out")
    who = attended(found)
    assert [number for number, names in enumerate(who, 1) if "south" not in names] == [2, 4, 5]
    away = [number for number, names in enumerate(who, 1) if "east" not in names]
    assert away and min(away) >= 6 and away == [*range(min(away), max(away) + 1)]
    assert "declines round 2" in parties["south"].log.read_text()
    replayed = replay(place, "out")
    assert hashes_of(replayed) == hashes_of(found) and attended(replayed) == who
    for name, agent in replayed["agents"].items():
        assert agent["metrics"] == found["agents"][name]["metrics"]
    assert replayed["rounds"] == found["rounds"]


def counts():
    """How many samples each has."""
    y = load_digits(return_X_y=True)[1]
    return {name: sum(y[row] in classes for row in rows) for name, (rows, classes) in SHARES.items()}


def test_a_run_begins_without_who_comes_later_or_never(tmp_path):
    place = tmp_path
    lay_out(place, SHARES, mesh_of(60, counts(), quorum=1))
    coordinator, address = coordinate(place, "out")
    parties = {"north": party(place, "north", address, "mine")}
    until(coordinator, r"round 2/60")
    parties["south"] = party(place, "south", address, "mine")
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found = summary(place, "out")
    who = attended(found)
    assert who[0] == ["north"] and who[-1] == ["north", "south"]
    assert "east was never there: nobody trained c" in found["notes"] and found["agents"]["c"]["dropped"]
    assert (place / "south" / "mine" / "south" / "agents" / "b").is_dir()
    replayed = hashes_of(replay(place, "out"))
    late = len([names for names in who if "south" not in names])
    print(f"\n60 rounds, {late} of them before south was there: weights of a and b "
          f"{'equal' if {**hashes_of(found), 'c': replayed['c']} == replayed else 'DIFFER'}")  # fmt: skip
    assert {**hashes_of(found), "c": replayed["c"]} == replayed


def test_who_says_nothing_for_too_long_is_left_behind(tmp_path):
    """And finds its place again."""
    place = tmp_path
    lay_out(place, SHARES, mesh_of(10, quorum=2, timeout=30))
    coordinator, address = coordinate(place, "out")
    parties = {name: party(place, name, address, "mine") for name in SHARES}
    until(coordinator, r"round 2/10")
    parties["north"].send_signal(signal.SIGSTOP)
    until(coordinator, r"round 5/10")
    parties["north"].send_signal(signal.SIGCONT)
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found = summary(place, "out")
    assert {"south", "east"} in map(set, attended(found))
    assert "north is gone: no answer for 30 s" in coordinator.log.read_text()
    assert hashes_of(replay(place, "out")) == hashes_of(found)


@pytest.mark.parametrize(("quorum", "rounds"), [(3, 60), (2, 400)], ids=["all are waited for", "two are enough"])
def test_kills_at_random_of_parties_and_coordinator(tmp_path, quorum, rounds):
    place, draw = tmp_path, random.Random(quorum)
    lay_out(place, SHARES, mesh_of(rounds, quorum=quorum))
    coordinator, address = coordinate(place, "out")
    parties = {name: party(place, name, address, "mine", patience="300") for name in SHARES}
    until(coordinator, "round 1/")
    (root,) = (place / "coordinator" / "out").glob("clinics/*")
    start, killed = time.monotonic(), dict.fromkeys([*SHARES, "coordinator"], 0)
    for _ in range(KILLS // 2):
        time.sleep(draw.uniform(0, 1.5))
        who = draw.choice([*SHARES, *SHARES, "coordinator"])
        if coordinator.poll() is not None:
            break
        killed[who] += 1
        process = coordinator if who == "coordinator" else parties[who]
        process.send_signal(signal.SIGKILL)
        process.wait()
        if who == "coordinator":
            coordinator = begin(place, "coordinator", "resume", str(root), "--listen", address, "--tls",
                                str(place / "keys" / "coordinator"), "--no-report")  # fmt: skip
            until(coordinator, "round ")
        else:
            parties[who] = party(place, who, address, "mine", patience="300")
            until(parties[who], "joined|: joined")
            until(coordinator, rf"(?s){who} has joined.*round |run is over|finished in")
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found = summary(place, "out")
    expected = simulate(place, "undisturbed") if quorum == 3 else replay(place, "out")
    absent = sum(len(names) < 3 for names in attended(found))
    print(f"\n{sum(killed.values())} kills ({', '.join(f'{count} of {name}' for name, count in killed.items())}), "
          f"{rounds} rounds, {absent} of them without somebody, {time.monotonic() - start:.0f} s: "
          f"weights {'equal' if hashes_of(found) == hashes_of(expected) else 'DIFFER'}")  # fmt: skip
    assert sum(killed.values()) == KILLS // 2
    assert hashes_of(found) == hashes_of(expected)
    assert (absent > 0) == (quorum == 2)
    assert not re.search("Traceback", coordinator.log.read_text())
