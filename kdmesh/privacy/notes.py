"""What answers cost in hindsight, kept beside a ledger for its party's own eyes: see :mod:`kdmesh.privacy.pate`.

A file of lines of JSON that only its user can read, one for a charge: its number, and for each answer the log of how
likely another one was, at most. It is made of private votes, so that it is as private as these, and so is the epsilon
that :func:`private_epsilon` makes of it. A charge without a line counts as it does on any data.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from kdmesh import files
from kdmesh.privacy.accounting import epsilon, rdp
from kdmesh.privacy.ledger import PRIVATE
from kdmesh.privacy.pate import private_rdp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kdmesh.privacy.ledger import Account


def keep(path: Path, number: int, log_q: Sequence[float]) -> None:
    """Append what a charge of the ledger at ``path`` cost."""
    said = json.dumps({"number": number, "log_q": [max(one, -1e9) for one in log_q]})  # JSON has no infinity
    file = os.open(path.with_name(path.name + PRIVATE), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(file, "w", encoding="ascii") as opened:
        opened.write(f"{said}\n")


def kept(path: Path) -> dict[int, list[float]]:
    """The logs by charge, of lines that are whole."""
    found: dict[int, list[float]] = {}
    with suppress(OSError):
        for line in files.read(path.with_name(path.name + PRIVATE)).splitlines():
            with suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                logs = [float(one) for one in said["log_q"]]
                if all(math.isfinite(one) and one < 0 for one in logs):
                    found[int(said["number"])] = logs
    return found


def private_epsilon(account: Account) -> tuple[float, int]:
    """Epsilon in hindsight at the budget's delta, which is private itself, and how many charges it knows more of."""
    notes, curves, plain, used = kept(account.path), [], [], 0
    for line in account.lines:
        answers = line.charge.answers
        logs = notes.get(line.number, [])
        if len(logs) == answers.count:
            used += 1
            curves += [private_rdp(one, 1 / (2 * answers.multiplier**2)) for one in logs]
        else:
            plain.append(answers)
    total = [math.fsum(column) for column in zip(rdp(plain), *curves, strict=True)]
    return epsilon(total, account.title.budget.delta), used
