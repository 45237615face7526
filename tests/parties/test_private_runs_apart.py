"""Four processes, of which one party trains privately: the bits and the charges of a simulation, through kills.

North learns of its samples by DP-SGD, with a secret and a ledger on its own machine alone; south and east do not. A
copy of the secret makes the simulation.
"""

from __future__ import annotations

import shutil
import signal

import pytest
from apart import PATIENCE, begin, coordinate, data_of, lay_out, party, simulate, summary, until
from safetensors.torch import load_file

from kdmesh.engine.accounts import create
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.privacy.ledger import read
from kdmesh.spec.read import read_mesh

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHARES = {
    "north": (range(300, 700), {*range(10)}),
    "south": (range(700, 1100), {0, 1, 2, 3, 4, 5}),
    "east": (range(1100, 1400), {4, 5, 6, 7, 8, 9}),
}
AGENTS = dict(zip(SHARES, "abc", strict=True))
ROUNDS = 30
PRIVATE = {"train": {"private": {"noise_multiplier": 2.5, "max_grad_norm": 1.0}}}
BUDGET = {"privacy": {"epsilon": 8, "delta": 1e-5, "adjacency": "zero_out"}}


def mesh(path):
    rounds = {"students": [*AGENTS.values()], "objective": {"kl": {"temperature": 1}}, "rounds": ROUNDS}
    return {
        "name": "clinics",
        "data": {"dataset": data_of("public.csv"), "transfer": 0.3},
        "agents": {
            agent: {"model": {"mlp": {"hidden": [8 + 4 * at]}}, **(PRIVATE if agent == "a" else {})}
            for at, agent in enumerate(AGENTS.values())
        },
        "parties": {
            name: {"agents": [agent], "data": data_of(path(name)), **(BUDGET if agent == "a" else {})}
            for name, agent in AGENTS.items()
        },
        "connect": [{"rounds": {**rounds, "labels_stream": "own", "consensus": "mean"}}],
        "train": {"batch_size": 32, "epochs": 1, "optimizer": {"adamw": {"lr": 5e-3}}},
    }


def charged(place, which):
    """What each line of north's ledger charges, in their order."""
    return [line.charge for line in read(place / which / "north" / "ledger").lines]


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def test_a_private_party_has_the_bits_and_the_charges_of_a_simulation_through_kills(tmp_path):
    place = tmp_path
    lay_out(place, SHARES, mesh)
    create(make_plan(read_mesh(place / "coordinator" / "simulated.yaml"), registry()), place / "accounts")
    shutil.copytree(place / "accounts", place / "copied")
    own = {"north": ("--privacy", str(place / "accounts" / "north"))}

    def join(name):
        return party(place, name, address, "mine", *own.get(name, ()), patience="300")

    coordinator, address = coordinate(place, "out")
    parties = {name: join(name) for name in SHARES}
    for number, who in ((4, "north"), (8, "south"), (12, "coordinator"), (16, "north")):
        until(coordinator, rf"round {number}/{ROUNDS}")
        killed = coordinator if who == "coordinator" else parties[who]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        if who == "coordinator":
            (root,) = (place / "coordinator" / "out").glob("clinics/*")
            coordinator = begin(place, "coordinator", "resume", str(root), "--listen", address, "--tls",
                                str(place / "keys" / "coordinator"), "--no-report")  # fmt: skip
        else:
            parties[who] = join(who)
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    found, expected = summary(place, "out"), simulate(place, "simulated", "--privacy", str(place / "copied"))
    (root,) = (place / "coordinator" / "simulated").glob("clinics/*")
    for name, agent in AGENTS.items():
        mine, other = weights_of(place / name / "mine" / name / "agents" / agent), weights_of(root / "agents" / agent)
        assert mine.keys() == other.keys() and all(mine[key].equal(other[key]) for key in mine), name
    spent = {key: value for key, value in found["privacy"]["north"].items() if key != "head"}
    assert spent == {key: value for key, value in expected["privacy"]["north"].items() if key != "head"}
    lines = charged(place, "accounts")
    assert lines == charged(place, "copied") and lines
    assert [*found["privacy"]] == ["north"]
    secret = (place / "accounts" / "north" / "secret").read_bytes()
    for path in (path for name in ("coordinator", "south", "east") for path in (place / name).rglob("*")):
        if path.is_file():
            assert secret not in path.read_bytes() and secret.hex().encode() not in path.read_bytes(), path
    print(f"\n4 kills, {ROUNDS} rounds, {len(lines)} charges of {spent['answers']} steps, "
          f"epsilon {spent['rdp']:.3f}: weights and charges equal")  # fmt: skip
