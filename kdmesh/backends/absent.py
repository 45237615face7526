"""What calls give of a host that does not take part: nothing was done, and nothing said."""

from __future__ import annotations

from typing import Any

from kdmesh.errors import RunFailed
from kdmesh.hosts.step import Report


def nothing(host: str, method: str) -> Any:
    """The result of a call of a host that is not there. RunFailed for one whose result somebody must have."""
    if method == "run":
        return {}, Report({}, [], [], [])
    if method not in NOTHING:
        raise RunFailed(f"{host} is not there, and is asked to {method}", where=f"parties.{host}")
    value = NOTHING[method]
    return value.copy() if isinstance(value, dict | list) else value


NOTHING: dict[str, Any] = {
    **dict.fromkeys(("start", "begin", "end", "load", "renew", "away")),
    **dict.fromkeys(("measured_at", "restore_best", "take_weights")),
    "publish": {},
    "publish_consensus": {},
    "commit": {},
    "recall": {},
    "evaluate": {},
    "evaluate_consensus": {"quality": {}, "oracle": False},
    "receive": [],
    "passed": 0,
    "keep_best": False,
    "sees": False,
}
"""By method; what is measured and saved at the end of a run is of all."""
