"""The privacy accounts of a mesh's parties: where they are, and what they say once a run is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.backends._base import wait
from kdmesh.checks.private_training import private_steps
from kdmesh.errors import MeshError, nearest
from kdmesh.graph import budgets
from kdmesh.graph.digests import of_run
from kdmesh.hosts.remote import RemoteHost
from kdmesh.privacy.account import PartyAccount

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kdmesh.backends._base import Work
    from kdmesh.checks.checked import Checked
    from kdmesh.engine.context import RunContext
    from kdmesh.graph.plan import Plan
    from kdmesh.privacy.summary import Summary


WRITE = "parties.NAME.privacy: {epsilon: 8, delta: 1e-5}"


def account(plan: Plan, party: str, folder: Path) -> PartyAccount:
    """The account of a party with a budget, in a folder."""
    privacy = plan.spec.parties[party].privacy
    assert privacy is not None
    return PartyAccount(folder, party, privacy.unit, privacy.adjacency, budgets.budget(plan, party))


def create(plan: Plan, root: Path, party: str | None = None) -> list[PartyAccount]:
    """Make the account of a party in a folder, or, of all with a budget, each in one of its name there."""
    if not plan.withholding:
        raise MeshError("no party of this mesh has a privacy budget", where="parties", instead=WRITE)
    if party is not None and party not in plan.withholding:
        instead = nearest(party, plan.withholding, "parties with a budget")
        raise MeshError(f"{party!r} is no party with a privacy budget", where="--as", instead=instead)
    found = [account(plan, one, root / one) for one in plan.withholding] if party is None else []
    found = found or [account(plan, party or "", root)]
    for one in found:
        one.refuse_there()
    for one in found:
        one.create()
    return found


def simulated(plan: Plan, root: Path | None, runs: Path | None = None) -> dict[str, PartyAccount]:
    """Those of all parties of a simulation, each proved to be there and sound; ``root`` has a folder for each.

    ``runs``: where the run writes, in which they may not be: what is there is copied, collected and shown.
    """
    return _opened(plan, {party: party for party in plan.withholding}, root, runs)


def own(plan: Plan, party: str, folder: Path | None, runs: Path | None = None) -> dict[str, PartyAccount]:
    """That of one party in its own process, whose ``folder`` it is; nothing where it has no budget."""
    return _opened(plan, {party: "."} if party in plan.withholding else {}, folder, runs)


def _opened(plan: Plan, at: dict[str, str], root: Path | None, runs: Path | None) -> dict[str, PartyAccount]:
    first = next(iter(at), "")
    if not at:
        if root is not None:
            what = "there is no party with a privacy budget here"
            raise MeshError(what, where="--privacy", instead=f"leave it out, or write {WRITE}")
        return {}
    if root is None:
        what = f"{first} has a privacy budget, and nobody said where its secret and its ledger are"
        instead = "--privacy FOLDER, made once by kdmesh ledger new FILE --privacy FOLDER"
        raise MeshError(what, where=f"parties.{first}.privacy", instead=instead)
    if runs is not None and root.resolve().is_relative_to(runs.resolve()):
        what = f"{root} is in {runs}, where a run writes: secrets of parties stand in none"
        raise MeshError(what, where="--privacy", instead="a folder elsewhere")
    found = {party: account(plan, party, root / folder) for party, folder in at.items()}
    for one in found.values():
        one.check()
    return found


def refuse_short(plan: Plan, found: Checked, accounts: Mapping[str, PartyAccount]) -> None:
    """Refuse a run that would end for want of budget, in the middle of training that is private.

    Where it may make fewer steps, it is begun: of rounds in which not all take part, and of training that may stop.
    """
    if plan.spec.participation is not None:
        return
    certain = [one for one in private_steps(plan, found) if plan.train(one.agent).early_stopping is None]
    for party, one in accounts.items():
        wanted = [(some.agent, some.mechanism, some.steps) for some in certain if some.party == party]
        if wanted:
            one.refuse_short(of_run(plan), wanted)


def spent(run: RunContext) -> Work[dict[str, Summary]]:
    """By party with a budget, what it has spent of it in all."""
    parties = [party for party in run.plan.withholding if party in run.plan.hosts]
    told = yield from wait(run.backend.submit(party, RemoteHost.account) for party in parties)
    return {party: one for party, one in zip(parties, told, strict=True) if one is not None}
