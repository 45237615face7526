"""What the store has spared a run: where it is, and what the summary says of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.engine.histories import told as told_of
from kdmesh.engine.sharing import apart
from kdmesh.errors import MeshError
from kdmesh.graph import histories
from kdmesh.hosts.remote import RemoteHost
from kdmesh.store import Store, default_limit, default_root
from kdmesh.store.store import OFF

if TYPE_CHECKING:
    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext
    from kdmesh.hosts.shelf import Told


def kept_at(asked: str | None) -> str:
    """Where answers are kept: as asked, or as the environment says, or in the user's cache folder; "" for nowhere.

    MeshError for what can be no store.
    """
    where = default_root() if asked is None else None if asked == OFF else asked
    if where is None:
        return ""
    if not str(where).strip():
        raise MeshError("no folder is named", where="store", instead="a folder, or off")
    place = str(where) if "://" in str(where) else os.path.abspath(where)
    Store.open(place, limit_bytes=default_limit())  # creates nothing
    return place


def stored_at(asked: str | None) -> str | None:
    """What processes in other folders ask for to have the same store; None: as their environment says."""
    return asked if asked in (None, OFF) else kept_at(asked)


def told(run: RunContext, summary: dict[str, Any]) -> Work[None]:
    """Put what the store had into a summary, by agent and in all, with why the answers of others are not kept.

    Counted since the process began in which the run was finished.
    """
    hosts = list(run.plan.hosts)
    parts: list[Told | None] = yield from wait(run.backend.submit(host, RemoteHost.shelved) for host in hosts)
    known = [part for part in parts if part is not None]
    summary["notes"] += yield from _of_other_machines(run, dict(zip(hosts, parts, strict=True)))
    if not known:
        if lost := [*histories.kept(run.plan), *histories.kept_texts(run.plan)]:
            summary["notes"].append(f"the history of {', '.join(lost)} is not kept: there is no store")
        return
    agents = {name: hits for part in known for name, hits in part["agents"].items()}
    keys = list(next(iter(agents.values()), {}))
    summary["store"] = {
        "agents": agents,
        "all": {key: round(sum(hits[key] for hits in agents.values()), 3) for key in keys},
        **({"histories": found} if (found := told_of(run)) else {}),
        "not_loaded": [name for part in known for name in part["unread"]],
        "not_kept": {name: why for part in known for name, why in part["left"].items()},
    }
    summary["notes"] += [f"store: {note}" for part in known for note in part["notes"]]
    if foreign := [name for name, hits in agents.items() if hits["foreign"]]:
        how = "; ".join(dict.fromkeys(text for part in known for text in part["elsewhere"]))
        summary["notes"].append(
            f"answers of {', '.join(foreign)} were kept where they were computed otherwise ({how}): their last bits "
            "may differ from those computed here"
        )


def _of_other_machines(run: RunContext, parts: dict[str, Told | None]) -> Work[list[str]]:
    """Of hosts that have a folder of their own for the store, on a machine that does not see the driver's."""
    folders = {host: part["folder"] for host, part in parts.items() if part is not None and part["folder"]}
    if not run.backend.away or not folders:
        return []
    root = Path(next(iter(folders.values())))
    new = not root.exists()
    try:
        alone = yield from apart(root, run.backend, folders)
    except OSError:
        return []
    finally:
        if new:
            with suppress(OSError):  # it is not empty
                root.rmdir()
    said = []
    for host in sorted(alone):
        part = parts[host]
        assert part is not None
        found, forwarded = (sum(hits[key] for hits in part["agents"].values()) for key in ("found", "forwarded"))
        if found or forwarded:
            said.append(
                f"store: {host} has {root} of its own machine, {part['node']}: {found} answers were found there, and "
                f"{forwarded} computed; a folder that all machines share, or a URL, would be one store"
            )
    return said
