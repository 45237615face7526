"""A verifier of written texts in a process of its own: it reads texts as lines of JSON and writes what it says of each.

Started by :class:`kdmesh.hosts.rewarding.Apart`. Before each text it sets an alarm that ends it, whatever it is doing
then, so that it does not outlive its limit where the process that asked is gone.
"""

from __future__ import annotations

import json
import math
import os
import signal
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.filter import WrittenText
from kdmesh.errors import MeshError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.contracts.metric import Metric


def main() -> None:
    """Serve until there is no more to read. What a verifier prints goes to the error stream."""
    answers, asked = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    call: Callable[[WrittenText], Any] | None = None
    limit = 0.0
    for line in asked:
        message = json.loads(line)
        answer: dict[str, Any]
        try:
            if call is None:
                call, limit, answer = _made(message), message["limit"], {"number": None}
            else:
                signal.setitimer(signal.ITIMER_REAL, limit)
                found = call(WrittenText(**message))
                signal.setitimer(signal.ITIMER_REAL, 0)
                answer = {"number": checked(found)}
        except MeshError as error:
            answer = {"refused": error.what, "where": error.where, "instead": error.instead}
        except Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            answer = {"error": text_of(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _made(message: dict[str, Any]) -> Callable[[WrittenText], Any]:
    if message["function"]:
        from kdmesh.imports import maker

        instead = "`def right(text, ...) -> bool:`, or `-> float:`"
        function = maker(message["factory"], message["where"], (bool, float), "bool or float", instead=instead)
        return lambda text: function(text, **message["settings"])
    from kdmesh.imports import import_path

    metric = import_path(message["factory"], message["where"])(**message["settings"])
    return lambda text: number_of(metric, text)


def number_of(metric: Metric, text: WrittenText) -> float | None:
    """What a metric says of one text; None: it does not count. ValueError for a metric that says nothing of one."""
    import torch

    from kdmesh.contracts.metric import Answers

    found = metric.each(Answers(torch.zeros(1, 0), torch.zeros(1, dtype=torch.int64), texts=[text]))
    if not isinstance(found, torch.Tensor) or found.shape != (1,):
        raise ValueError("its `each` gave no number for the text")
    value = float(found[0])
    return None if math.isnan(value) else checked(value)


def checked(found: Any) -> float | None:
    """What a verifier said, as a number. ValueError for what is none."""
    if found is not None and (not isinstance(found, bool | int | float) or not math.isfinite(found)):
        raise ValueError(f"it gave {found!r:.40}, which is no number")
    return None if found is None else float(found)


if __name__ == "__main__":
    main()
