"""Kill, or interrupt, a run of several seeds and controls at seeded moments, and take it to its table.

`kdmesh run --backend ray --seeds 2 --controls` in a process of its own. A moment is so many lines into the log of a
seed or a control, and a fraction of a second: then SIGKILL comes to a host, the raylet, the control store or the
driver, or a signal to the driver alone. Whatever it left, `kdmesh resume` must end with the table that the unbroken
command prints and keeps, byte for byte, and with the same weights everywhere; nothing may stay behind.

    python tests/chaos/asked.py [--moments 14] [--seed 20261129]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE), str(HERE.parent)]

from commands import PATIENCE  # noqa: E402
from doomed import Alone  # noqa: E402
from left import holders  # noqa: E402

MESH = """
name: asked
data: {dataset: digits, train: 400}
agents:
  t1: {model: {mlp: {hidden: [32]}}}
  t2: {model: {mlp: {hidden: [16]}}}
  s: {model: {mlp: {hidden: [8]}}}
  p: {model: {mlp: {hidden: [8]}}}
connect: [{ensemble: {teachers: [t1, t2], students: [s, p]}}, {mutual: {peers: [s, p], labels: null}}]
train: {epochs: 12, batch_size: 16, optimizer: {adamw: {lr: 1e-2}}}
placement: spread
"""
ASKED = ("--backend", "ray", "--seeds", "2", "--controls", "--checkpoint-seconds", "0.3")
SEED = 20261129
VICTIMS = ("host", "raylet", "gcs_server", "driver", "pause", "pause twice", "term")
SIGNALS = {"driver": (signal.SIGKILL,), "pause": (signal.SIGINT,), "pause twice": (signal.SIGINT,) * 2,
           "term": (signal.SIGTERM,)}  # fmt: skip


class Moment(NamedTuple):
    """Whom something befalls, and when: in which part, after how many lines of its log, and how many seconds later."""

    victim: str
    part: str
    line: int
    later: float

    def __str__(self) -> str:
        return f"{self.victim} in {self.part}, {self.later:.2f} s after line {self.line}"


class Outcome(NamedTuple):
    """What must be equal: the tables printed and kept, and every weight."""

    shown: list[str]
    results: tuple[str, str]
    weights: dict[str, str]


def outcome(command: Alone) -> Outcome:
    """What a command that has ended well gave."""
    (root,) = command.out.glob("*/*")
    weights = {
        f"{path.parent.relative_to(root)} {name}": facts["weights_sha256"]
        for path in sorted(root.rglob("summary.json"))
        for name, facts in json.loads(path.read_text(encoding="utf-8"))["agents"].items()
    }
    shown = command.shown.read_text(encoding="utf-8").splitlines()[:-1]  # the last one: folder and seconds
    return Outcome(shown, (_read(root / "results.json"), _read(root / "results.csv")), weights)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def unbroken(folder: Path) -> tuple[Outcome, dict[str, int]]:
    """The unbroken command's outcome, and the lines of each part's log."""
    folder.mkdir()
    command = Alone(folder, MESH, *ASKED)
    code, said = command.end()
    assert code == 0, said
    (root,) = command.out.glob("*/*")
    logs = sorted(root.glob("seeds/**/events.jsonl"))
    return outcome(command), {str(log.parent.relative_to(root)): len(_read(log).splitlines()) for log in logs}


def draw(lines: dict[str, int], count: int, seed: int = SEED) -> list[Moment]:
    """Moments: every victim in turn, now in a seed, now in a control; any of them, anywhere in it."""
    rng, found = random.Random(seed), []
    for number in range(count):
        control = number % 2 == 1  # there is an odd number of victims
        part = rng.choice([part for part in lines if ("controls" in part) == control])
        later = round(rng.uniform(0, 0.05 if control else 0.4), 3)  # a control is over in a second
        found.append(Moment(VICTIMS[number % len(VICTIMS)], part, rng.randint(1, lines[part]), later))
    return found


def strike(command: Alone, moment: Moment) -> bool:
    """Wait for the moment, and do it. False if the command has ended before."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ended = command.process.poll() is not None
        told = [_read(log) for log in command.out.glob(f"*/*/{moment.part}/events.jsonl")]
        if told and (told[0].count("\n") >= moment.line or '"run_finished"' in told[0]):
            break
        if ended:
            return False
        assert time.monotonic() < deadline, f"{moment} never came"
        time.sleep(0.005)
    time.sleep(moment.later)
    if moment.victim in SIGNALS:
        for number in SIGNALS[moment.victim]:
            command.process.send_signal(number)
            time.sleep(0.02)  # two at once are one
    else:
        name = "ray::Worker" if moment.victim == "host" else moment.victim
        pids = [pid for pid, title in command.processes().items() if Path(title.split(" ")[0]).name.startswith(name)]
        if not pids:
            return False
        os.kill(random.Random(str(moment)).choice(sorted(pids)), signal.SIGKILL)
    return True


def befall(moment: Moment, folder: Path, expected: Outcome) -> tuple[str, str]:
    """Run, strike, and resume; returns what it came to and the verdict."""
    folder.mkdir()
    command = Alone(folder, MESH, *ASKED)
    try:
        struck = strike(command, moment)
        code, said = command.end()
        (root,) = command.out.glob("*/*")
        came = f"exit code {code}" if struck else f"too late, exit code {code}"
        fault = judged(moment, code, said, root) if struck else f"nothing happened: {said[-300:]}"
        if fault:
            return came, f"FAILED: {fault}"
        if code != 0:
            command.resume()
            code, said = command.end()
            came += ", resumed"
            if code != 0:
                return came, f"FAILED: resume: exit code {code}: {' '.join(said.split())[-600:]}"
        found = outcome(command)
        unlike = [name for name, a, b in zip(Outcome._fields, found, expected, strict=True) if a != b]
        return came, f"DIFFER in {', '.join(unlike)}: {first(found, expected)}" if unlike else "equal"
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return "", f"FAILED: {error}"
    finally:
        command.process.kill()


def first(found: Outcome, expected: Outcome) -> str:
    """Where two outcomes begin to differ."""
    lines = [
        [*one.shown, *"\n".join(one.results).splitlines(), *map(str, one.weights.items())] for one in (found, expected)
    ]
    return next((f"{a!r} for {b!r}" for a, b in zip(*lines, strict=False) if a != b), "one is longer")


def judged(moment: Moment, code: int, said: str, root: Path) -> str:
    """What is wrong with how the command ended, if anything is."""
    codes = {"host": (0,), "driver": (-signal.SIGKILL,), "raylet": (0, 1), "gcs_server": (0, 1)}
    last = said.rstrip().splitlines()[-1] if said.strip() else ""
    if code not in codes.get(moment.victim, (130,)):
        return f"exit code {code}: {' '.join(said.split())[-600:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-2000:]}"
    if code == 130 and last != f"kdmesh: interrupted; go on with: kdmesh resume {root}":
        return f"the last line is {last!r}"
    if code == 1 and not last.endswith(f"go on with: kdmesh resume {root}"):
        return f"the last line is {last!r}"
    return ""


def main() -> int:
    """Every moment; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--moments", type=int, default=2 * len(VICTIMS))
    options.add_argument("--seed", type=int, default=SEED)
    options.add_argument("--only", type=int, nargs="+", help="these alone, from 1")
    asked = options.parse_args()
    home = Path(tempfile.mkdtemp(prefix="asked-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(home)  # the path is short: sockets are in it
    start, good, tried = time.perf_counter(), 0, 0
    try:
        expected, lines = unbroken(home / "unbroken")
        for number, moment in enumerate(draw(lines, asked.moments, asked.seed), 1):
            if asked.only and number not in asked.only:
                continue
            came, verdict = befall(moment, home / str(number), expected)
            tried, good = tried + 1, good + (verdict == "equal")
            print(f"{number:2} {time.perf_counter() - start:5.0f} s  {moment}: {came}: {verdict}", flush=True)
        left = [*holders(str(home)).values(), *(path.name for path in home.glob("kdmesh-*"))]
        print(f"{good} of {tried} end with the unbroken table and weights; left behind: {', '.join(left) or 'nothing'}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return int(good < tried or bool(left))


if __name__ == "__main__":
    sys.exit(main())
