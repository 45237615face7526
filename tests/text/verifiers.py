"""Verifiers of written texts, as a user writes them: they begin fast in a process of their own."""

from __future__ import annotations

import os
import signal
import time

from kdmesh.filters import WrittenText


def close(text: WrittenText, by: float = 10.0) -> float:
    """A verifier: how near the last number of an answer is; of prompts with a 7 nothing is known."""
    print("what it prints is no answer")
    digits = [int(one) for one in text.text if one.isdigit()]
    if "7" in text.prompt:
        return None  # type: ignore[return-value]
    return -abs(sum(digits) - int(text.given)) / by


def hangs(text: WrittenText) -> float:
    if text.prompt.startswith("2+"):
        time.sleep(600)
    return 1.0


def overdue(text: WrittenText) -> float:
    """A verifier whose limit is over at once, however fast the machine is: its alarm rings."""
    if text.prompt.startswith("2+"):
        signal.raise_signal(signal.SIGALRM)
    return 1.0


def dies(text: WrittenText) -> float:
    if text.prompt.startswith("2+"):
        os._exit(3)
    return 1.0


def leaves(text: WrittenText) -> float:
    os.closerange(3, 64)  # the pipe of its answers, some time before its process ends
    time.sleep(0.5)
    os._exit(3)


def breaks(text: WrittenText) -> bool:
    if text.prompt.startswith("2+"):
        raise KeyError("no such answer")
    return True


def words(text: WrittenText) -> float:
    return "much"  # type: ignore[return-value]


def unsure(text: WrittenText, says: str = "nan") -> float:
    return float(says)


def ignores(text: WrittenText) -> float:
    """A verifier that takes the alarm away."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(600)
    return 1.0
