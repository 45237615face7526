"""Kill a process that answers thirty times, at moments of a seed, and look at its ledger each time.

A child opens the ledger, answers queries one after another, and tells each answer to its parent, through a pipe. The
parent kills it some microseconds after some answer, and then asks all that was answered again: each answer must be the
same, and cost nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from kdmesh.privacy import keys
from kdmesh.privacy.ledger import Budget, Ledger, Title, read
from kdmesh.privacy.mechanisms.gaussian_probabilities import GaussianProbabilities
from kdmesh.privacy.releasing import Desk

KILLS, SEED = 30, 23
ROW = np.full((1, 4), 0.25)
MECHANISM = GaussianProbabilities(200.0, "sample", "replace")


def answer(folder: Path, title: Title, pipe: int, first: int) -> None:
    """Answer until it is killed."""
    with Ledger(folder / "ledger", title) as ledger:
        desk = Desk(ledger, keys.load(folder / "key"), "mesh", "a")
        number = first
        while True:
            (row,) = desk.answer(MECHANISM, [f"q{number}"], ROW)
            os.write(pipe, f"q{number} {' '.join(map(repr, row.tolist()))}\n".encode())
            number += 1


def main(folder: Path) -> None:
    chance = random.Random(SEED)
    secret = keys.create(folder / "key")
    title = Title("a", secret.identity, "sample", "replace", Budget(8.0, 1e-5))
    answered: dict[str, list[float]] = {}
    secret.noise(1.0, 1, "", "", [("", "")])  # what children need is imported once
    torn = unanswered = 0
    for kill in range(KILLS):
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(told)
                answer(folder, title, tell, 1000 * kill)
            finally:
                os._exit(3)
        os.close(tell)
        after = chance.randrange(0, 4)  # answers, before the moment is drawn
        heard = b""
        while heard.count(b"\n") < after and (more := os.read(told, 1 << 16)):
            heard += more
        time.sleep(chance.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "it ended by itself"
        while more := os.read(told, 1 << 16):
            heard += more
        os.close(told)
        for line in heard.decode().splitlines():
            name, *row = line.split()
            answered[name] = list(map(float, row))
        if not (folder / "ledger").exists():
            assert not answered
            continue
        account = read(folder / "ledger")
        torn += bool(account.torn)
        charged = {one for line in account.lines for one in line.charge.queries}
        assert answered.keys() <= charged, f"answers without a charge: {answered.keys() - charged}"
        unanswered = len(charged - answered.keys())
    with Ledger(folder / "ledger", title) as ledger:
        before = ledger.account.spent()
        desk = Desk(ledger, secret, "mesh", "a")
        again = desk.answer(MECHANISM, list(answered), np.repeat(ROW, len(answered), 0))
        assert again.tolist() == list(answered.values()), "another answer than was given"
        assert ledger.account.spent() == before
    print(f"{KILLS} kills, {len(answered)} answers, {unanswered} charges without one, {torn} torn ends recovered")
    print("no answer without its charge, and each the same again for nothing")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
