"""The coordinator of parties in processes of their own: it waits until they have joined."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.graph.digests import of_mesh
from kdmesh.graph.participation import awaited
from kdmesh.graph.planner import make_plan
from kdmesh.parties.joining import known_before, public_digest
from kdmesh.parties.service import LOOPBACK, Certificates, Coordinator
from kdmesh.plugins import registry
from kdmesh.spec.parties import COORDINATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec


KEYED = (
    ": pseudonyms are made with a key (KDMESH_PERSONAL_KEY), and another key makes other samples; "
    "write data.personal.action: redact, or have all use one key"
)


@contextmanager
def coordinated(
    spec: MeshSpec, address: str, certificates: Certificates, patience: float, say: Callable[[str], None]
) -> Iterator[Coordinator]:
    """Listen on an address, HOST:PORT, until the parties of a mesh have joined, and while the block runs.

    That is all of them, or, where rounds may begin without some, a quorum. Port 0 is any that is free; ``say`` is told
    which, and who comes. MeshError for a mesh without parties, HostLost where some do not come within ``patience``
    seconds.
    """
    plan = make_plan(spec, registry())
    names = [name for name in plan.hosts if name != COORDINATOR]
    if not spec.parties:
        instead = "parties: {clinic: {agents: [a], data: ...}}"
        raise MeshError("there are no parties in this mesh", where="parties", instead=instead)
    refuse_apart(plan)
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise MeshError(f"found {address!r}", where="--listen", instead="HOST:PORT, as in 127.0.0.1:7400")
    table, _ = known_before(plan)
    expected = {"mesh": of_mesh(plan), "public": public_digest(table)}
    asked, sizes = spec.participation, {name: one.samples for name, one in spec.parties.items() if one.samples}
    silence = None if asked is None else asked.timeout
    why = awaited(plan)
    least, which = None if asked is None or why else asked.quorum, f", since {why}" if asked is not None and why else ""
    with Coordinator(address, certificates, names, expected, patience, say, silence, sizes, keyed(spec)) as meeting:
        others = "" if host in LOOPBACK else ", which other machines can reach"
        say(f"listening on {host}:{meeting.port}{others}; waiting for {', '.join(names)}{which}")
        meeting.links(names, least)
        yield meeting


def keyed(spec: MeshSpec) -> str:
    """What to tell a party with other public samples, where a key made them."""
    personal = None if spec.data is None else spec.data.personal
    return KEYED if personal is not None and personal.action == "pseudonymise" else ""


def refuse_apart(plan: Plan) -> None:
    """Raise MeshError for what a simulation runs and parties in processes of their own do not yet."""
    parties, asked = plan.spec.parties, plan.spec.participation
    instead = "--parties simulated"
    if asked is not None and asked.attendance is not None:
        what = "who takes part was recorded in another run, and parties apart say so themselves"
        raise MeshError(what, where="participation.attendance", instead=f"{instead}, or leave it out")
    for name, stream in plan.spec.streams.items():
        if stream.pooled:
            what = f"{name!r} pools samples of several parties, which nobody has apart"
            raise MeshError(what, where=plan.at(f"streams.{name}.pooled"), instead=instead)
        if stream.generated_by is not None and plan.host_of.get(stream.generated_by) in parties:
            what = f"{stream.generated_by} writes {name!r}, which parties apart do not do"
            raise MeshError(what, where=plan.at(f"streams.{name}.generated_by"), instead=instead)
    for name in plan.consensus:
        if plan.spec.consensus[name].history is not None and plan.evaluator(name) in parties:
            what = f"{name} is formed at {plan.evaluator(name)}, whose store would keep its history"
            raise MeshError(what, where=plan.at(f"consensus.{name}.history"), instead=f"{instead}, or leave it out")
