"""How every test sample was answered, of all hosts in one file, at the end of a part. `report/answers.py` reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.contracts.run_files import ANSWERS
from kdmesh.hosts.answered import STREAM, too_many, withheld
from kdmesh.hosts.remote import RemoteHost
from kdmesh.tasks import metric

if TYPE_CHECKING:
    import numpy as np

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.hosts.state import Kept


def gathered(run: RunContext) -> Work[tuple[bytes | None, dict[str, Any]]]:
    """The file's content after test was measured, None where there is none, and what the summary says of it."""
    if not run.tested:
        return None, {"file": None, "why": "test was not measured"}
    if why := withheld(run.plan, run.checked.streams):
        return None, {"file": None, "why": why}
    kept: dict[str, Kept] = {}
    for part in (yield from wait(run.backend.submit(host, RemoteHost.answers) for host in run.plan.hosts)):
        kept |= part
    names = [name for name in (*run.plan.spec.agents, *run.plan.consensus) if name in kept]
    if not names:
        return None, {"file": None, "why": "nobody's answers were compared with labels"}
    arrays, left_out = _arrays(kept, names)
    if why := too_many(sum(values.nbytes for values in arrays.values())):
        return None, {"file": None, "why": why}
    by = metric(run.plan.primary)
    scored = any(name.endswith("/score") for name in arrays)
    facts = {"file": ANSWERS, "rows": len(arrays["ids"]), "score": by.name if scored else None}
    if not scored:
        facts["why"] = f"{by.name} is no mean over samples: none has a score of its own"
    if left_out:
        facts["left_out"] = left_out
    about = {
        "format": 1,
        "task": run.plan.task.name,
        "stream": STREAM,
        "metric": by.name,
        "higher_is_better": by.higher,
        "agents": [name for name in names if name in run.plan.spec.agents and name not in left_out],
        "consensus": [name for name in names if name in run.plan.consensus and name not in left_out],
    }
    return _packed(arrays, about), facts


def _arrays(kept: dict[str, Kept], names: list[str]) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """Arrays by their names in the file; and who is left out of it, and why."""
    import numpy as np

    first = kept[names[0]]
    found, left_out = {"ids": first.ids, "labels": first.labels}, dict[str, str]()
    for name in names:
        own = kept[name]
        if not np.array_equal(own.ids, first.ids):
            left_out[name] = f"its texts are cut into other rows than those of {names[0]}"
            continue
        rows = own._asdict().items()
        found |= {f"{name}/{what}": values for what, values in rows if what not in found and values is not None}
    return found, left_out


def _packed(arrays: dict[str, np.ndarray[Any, Any]], about: dict[str, Any]) -> bytes:
    import numpy as np
    from safetensors.numpy import save

    content: bytes = save(
        {name: np.ascontiguousarray(values) for name, values in arrays.items()}, {"kdmesh": json.dumps(about)}
    )
    return content
