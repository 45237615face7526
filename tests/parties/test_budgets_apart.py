"""Parties with privacy budgets in their own processes: the bits and the charges of a simulation, whatever is killed.

North answers with noise on probabilities, south by the votes of its teachers, each on a part of what south has. Both
have their secrets, and their ledgers, on their own machines alone; a copy of the secrets makes the simulation.
"""

from __future__ import annotations

import math
import random
import re
import shutil
import signal
import time

import pytest
from apart import PATIENCE, begin, coordinate, data_of, lay_out, party, simulate, summary, until
from safetensors.torch import load_file

from kdmesh.engine.accounts import create
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.privacy.accounting import calibrated
from kdmesh.privacy.ledger import read
from kdmesh.spec.read import read_mesh

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHARES = {"north": (range(300, 700), {*range(10)}), "south": (range(700, 1100), {*range(10)})}
PUBLIC = 30  # samples that are answered in each round
KILLS = 15
AGENTS = {"north": ["a"], "south": [f"b[{number}]" for number in range(3)]}


def mesh_of(rounds, **participation):
    sigma = math.ceil(calibrated(7.5, 1e-5, rounds * PUBLIC, math.sqrt(2)))
    reading = ["a", "b[*]", "server"]
    budget = {"epsilon": 8, "delta": 1e-5}

    def mesh(path):
        return {
            "name": "clinics",
            "data": {"dataset": data_of("public.csv"), "transfer": PUBLIC},
            "streams": {"mine": {"of": "own", "shards": {"of": ["b[*]"]}}},
            "agents": {
                "a": {"model": {"mlp": {"hidden": [12]}}},
                "b": {"model": {"mlp": {"hidden": [8]}}, "count": 3},
                "server": {"model": {"mlp": {"hidden": [16]}}},
            },
            "parties": {
                "north": {"agents": ["a"], "data": data_of(path("north")), "privacy": budget},
                "south": {"agents": ["b[*]"], "data": data_of(path("south")), "privacy": budget},
            },
            "consensus": {
                "of_a": {"rule": {"gaussian_probabilities": {"sigma": sigma}}},
                "of_b": {"rule": {"gnmax": {"sigma": sigma}}},
                "all": {"rule": "mean"},
            },
            "flows": [
                {"from": "labels", "to": "a", "objective": "ce", "stream": "own", "lesson": "revisit"},
                {"from": "labels", "to": "b[*]", "objective": "ce", "stream": "mine", "lesson": "revisit"},
                {"from": "a", "to": "of_a", "stream": "transfer", "refresh": "round"},
                {"from": "b[*]", "to": "of_b", "stream": "transfer", "refresh": "round"},
                {"from": ["of_a", "of_b"], "to": "all", "stream": "transfer"},
                {"from": "all", "to": reading, "objective": {"kl": {"temperature": 1}}, "lesson": "digest"},
            ],
            "program": [
                {
                    "of": reading,
                    "repeat": rounds,
                    "do": [{"lesson": "revisit", "epochs": 3}, {"publish": ["a", "b[*]"]}, {"lesson": "digest"}],
                }
            ],
            "train": {"batch_size": 16, "epochs": 1, "optimizer": {"adamw": {"lr": 5e-3}}},
            **({"participation": participation} if participation else {}),
        }

    return mesh


def set_up(place, mesh):
    """Folders of all, and an account for each party, whose secrets a simulation may have."""
    lay_out(place, SHARES, mesh)
    create(make_plan(read_mesh(place / "coordinator" / "simulated.yaml"), registry()), place / "accounts")
    shutil.copytree(place / "accounts", place / "copied")


def join(place, name, address, patience="60"):
    return party(place, name, address, "mine", "--privacy", str(place / "accounts" / name), patience=patience)


def charged(place, which, name):
    """By purpose and query, the tag of what was asked. Nothing twice."""
    found = {}
    for line in read(place / which / name / "ledger").lines:
        for query, tag in line.charge.queries.items():
            assert (line.charge.purpose, query) not in found, f"{query} is charged twice"
            found[line.charge.purpose, query] = tag
    return found


def equal(place, out, simulated):
    """Whether all agents are alike: the server's, and those that stayed with their parties."""
    (root,) = (place / "coordinator" / simulated).glob("clinics/*")
    (run,) = (place / "coordinator" / out).glob("clinics/*")
    pairs = [(run / "agents" / "server", root / "agents" / "server")]
    pairs += [(place / party / "mine" / party / "agents" / one, root / "agents" / one)
              for party, agents in AGENTS.items() for one in agents]  # fmt: skip
    for one, two in pairs:
        first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
        if first.keys() != second.keys() or not all(first[name].equal(second[name]) for name in first):
            return False
    return True


def test_parties_apart_have_the_bits_and_the_charges_of_a_simulation(tmp_path):
    place = tmp_path
    set_up(place, mesh_of(3))
    coordinator, address = coordinate(place, "out")
    parties = {name: join(place, name, address) for name in SHARES}
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found, expected = summary(place, "out"), simulate(place, "simulated", "--privacy", str(place / "copied"))
    assert equal(place, "out", "simulated")
    for name in SHARES:
        own = charged(place, "accounts", name)
        assert own == charged(place, "copied", name) and len(own) == 3 * PUBLIC
        assert {**found["privacy"][name], "head": ""} == {**expected["privacy"][name], "head": ""}
        secret = (place / "accounts" / name / "secret").read_bytes()
        held = [path for path in (place / "coordinator").rglob("*") if path.is_file()]
        assert not any(secret in path.read_bytes() or secret.hex().encode() in path.read_bytes() for path in held)


@pytest.mark.parametrize(("quorum", "rounds"), [(2, 40), (1, 150)], ids=["all are waited for", "one is enough"])
def test_kills_at_random_charge_nothing_twice_and_nothing_too_little(tmp_path, quorum, rounds):
    place, draw = tmp_path, random.Random(quorum)
    set_up(place, mesh_of(rounds, quorum=quorum))
    coordinator, address = coordinate(place, "out")
    parties = {name: join(place, name, address, "300") for name in SHARES}
    until(coordinator, "round 1/")
    (root,) = (place / "coordinator" / "out").glob("clinics/*")
    start, killed = time.monotonic(), dict.fromkeys([*SHARES, "coordinator"], 0)
    for _ in range(KILLS):
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
            parties[who] = join(place, who, address, "300")
            until(parties[who], "joined|: joined")
            until(coordinator, rf"(?s){who} has joined.*round |run is over|finished in")
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found = summary(place, "out")
    replay = ("--attendance", str(root)) if quorum == 1 else ()
    simulate(place, "simulated", "--privacy", str(place / "copied"), *replay)
    absent = sum(len(one["attended"]) < 2 for one in found["rounds"])
    ledgers = {name: (charged(place, "accounts", name), charged(place, "copied", name)) for name in SHARES}
    more = {name: len(own) - len(least) for name, (own, least) in ledgers.items()}
    same = equal(place, "out", "simulated")
    told = (f"{name} {len(own):,}, {more[name]} of them heard by nobody" for name, (own, _) in ledgers.items())
    print(f"\n{sum(killed.values())} kills ({', '.join(f'{count} of {name}' for name, count in killed.items())}), "
          f"{rounds} rounds, {absent} of them without somebody, {time.monotonic() - start:.0f} s: weights "
          f"{'equal' if same else 'DIFFER'}\n  answers charged: "
          + ", ".join(told)
    )  # fmt: skip
    assert sum(killed.values()) == KILLS and same
    for name, (own, least) in ledgers.items():
        assert least.items() <= own.items()  # all that was heard was paid for, of the same values
        assert more[name] == 0 or quorum == 1
        rounds_of = sum(name in one["attended"] for one in found["rounds"])
        assert len(least) == rounds_of * PUBLIC
        assert found["privacy"][name]["answers"] == len(own)
    assert (absent > 0) == (quorum == 1)
    assert not re.search("Traceback", coordinator.log.read_text())
