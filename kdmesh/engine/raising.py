"""A finished run that trains for more epochs: in a folder of its own, to the weights of a run that was so long at once.

The finished run stays as it is. Its checkpoints are copied as they stood before each stage's end; what trains longer
goes on from there, and what learns from it begins anew.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kdmesh.checks.budget import phase_steps
from kdmesh.contracts import events as kinds
from kdmesh.contracts.run_files import ENDPOINTS, LOG, MANIFEST, STREAMS
from kdmesh.engine import dropping
from kdmesh.engine.check import examine
from kdmesh.engine.checkpoint import HOSTS, STATE, Checkpoints
from kdmesh.engine.checkpoint import MANIFEST as CHECKPOINT
from kdmesh.engine.collect import fresh
from kdmesh.engine.folder import IDENTITY, Folder
from kdmesh.engine.lock import held
from kdmesh.engine.looked_up import settled
from kdmesh.engine.resume import as_begun, asked, finished, refuse_changes, refuse_part
from kdmesh.errors import MeshError, RunFailed, nearest
from kdmesh.files import read, read_json, reason, remedy, write, write_json
from kdmesh.graph.planner import make_plan
from kdmesh.graph.program import Train
from kdmesh.hosts.optimizers import counts_all
from kdmesh.plugins import registry
from kdmesh.spec.base import MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kdmesh.checks.checked import Checked
    from kdmesh.engine.request import Request
    from kdmesh.graph.plan import Plan, Stage
    from kdmesh.spec import MeshSpec

RAISED = "raised"  # the manifest's field: of which run this one is the longer form, and by what
AGAIN = "a new run, or kdmesh run FILE --from DIR, which begins with these weights"
MESH = ""  # for whom no agent is named: all that have no epochs of their own


def asked_epochs(given: list[str]) -> dict[str, int]:
    """Epochs by agent, as a command line has them: ``40`` of the mesh, ``student=40`` of one agent."""
    found = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or text.startswith("=") or not 1 <= int(number) <= MOST or name in found:
            what = f"{text!r} is no number of epochs" if name not in found else f"{text!r} is given twice"
            raise MeshError(what, where="--epochs", instead="40, or one agent's: student=40")
        found[name] = int(number)
    return found


def raised(request: Request, wanted: Mapping[str, int]) -> Request:
    """A request for the finished run ``request.resume``, made longer: of a new folder beside it, ready to go on.

    ``wanted``: epochs by agent; those of :data:`MESH` are the mesh's, for all agents without their own. MeshError where
    the result would not be that of a run with so many epochs, and says why.
    """
    assert request.resume is not None
    root = request.resume
    known = _whole(root)
    _folder_of_one(known["begun"], root)
    with held(root):
        spec = settled(as_begun(request.spec, root), request.store)
        before = make_plan(spec, registry())
        longer = make_plan(_longer(spec, wanted, root), registry())
        checked = examine(
            before, request.modules, request.table, request.ray_address is None, request.writers, request.store,
            began=root,
        )  # fmt: skip
        refuse_changes(Folder.at(root), before, checked)
        more = _more(before, longer, checked, wanted, root)
        anew = _readers(longer, set(more))
        if anew and any(stream.generated_by is not None for stream in spec.streams.values()):
            what = f"the stage {min(anew)!r} would begin anew, and agents wrote texts"
            raise MeshError(what, file=str(root), where="--epochs", instead=AGAIN)
        try:
            made = _copied(root, known, longer, checked, more, anew, wanted)
        except OSError as error:
            instead = f"{remedy(error) or 'free disk space'}, then the same command again"
            raise RunFailed(
                f"the longer run's folder could not be written: {reason(error)}", file=str(root), instead=instead
            ) from error
    return replace(request, spec=longer.resolved(), resume=made, collect=None)


def _whole(root: Path) -> dict[str, Any]:
    """The manifest of a run that has finished."""
    refuse_part(root)
    known = asked(root)
    if not finished(root, known["begun"]):
        raise MeshError(
            "this run has not finished", file=str(root), instead=f"kdmesh resume {root}, and then with --epochs"
        )
    return known


def _folder_of_one(begun: dict[str, Any], root: Path) -> None:
    """MeshError for a run of several seeds, or with controls, which would all have to be longer."""
    if begun.get("seeds", 1) > 1 or begun.get("controls"):
        what = "several seeds" if begun.get("seeds", 1) > 1 else "controls"
        raise MeshError(f"it was run with {what}", file=str(root), instead="a new run: kdmesh run FILE --set ...")
    if drops := dropping.read(root):
        what = f"it went on without {drops[0]['agents'][0]}, which was lost"
        raise MeshError(what, file=str(root), instead="a new run: kdmesh run FILE --set ...")


def _longer(spec: MeshSpec, wanted: Mapping[str, int], root: Path) -> MeshSpec:
    """The mesh with these epochs."""
    agents, train = dict(spec.agents), spec.train
    for name, epochs in wanted.items():
        if name == MESH:
            now, steps = train.epochs, train.steps
            train = train.model_copy(update={"epochs": epochs})
        elif name not in agents:
            raise MeshError(
                f"no agent is called {name!r}", where="--epochs", instead=nearest(name, [*agents], "agents of this run")
            )
        else:
            settings = agents[name].train.over(spec.train)
            now, steps = settings.epochs, settings.steps
            own = agents[name].train.model_copy(update={"epochs": epochs})
            agents[name] = agents[name].model_copy(update={"train": own})
        who = name or "the mesh"
        if steps is not None:
            raise MeshError(f"{who} trains for {steps} steps, not epochs", where="--epochs", instead=AGAIN)
        if epochs <= now:
            raise MeshError(f"{who} has {now} epochs, and {epochs} are not more", file=str(root), where="--epochs",
                            instead=f"more than {now}")  # fmt: skip
    return spec.model_copy(update={"agents": agents, "train": train})


def _more(
    before: Plan, longer: Plan, found: Checked, wanted: Mapping[str, int], root: Path
) -> dict[str, dict[str, int]]:
    """The budgets of stages that train longer, by weights. MeshError where that is not to go on from their end."""
    more = {}
    for old, new in zip(before.stages, longer.stages, strict=True):
        lines = new.program.trains()
        was = {line.key: phase_steps(before, found, old, line) for line in lines}
        now = {line.key: phase_steps(longer, found, new, line) for line in lines}
        if was != now:
            _continues(longer, new, was, now)
            more[new.name] = now[lines[0].key]
    idle = [
        name for name in wanted if name and longer.owner[name] not in {one for each in more.values() for one in each}
    ]
    if idle or not more:
        what = f"{', '.join(idle)} would not train longer by it" if idle else "nobody would train longer by it"
        raise MeshError(what, file=str(root), where="--epochs", instead="agents that train by their own `epochs`")
    return more


def _continues(plan: Plan, stage: Stage, was: dict[str, dict[str, int]], now: dict[str, dict[str, int]]) -> None:
    """MeshError where a longer stage is not the shorter one and more: what it did would have been otherwise."""

    def refuse(what: str, where: str = "--epochs") -> None:
        raise MeshError(f"{what}: more epochs would change what was done before", where=where, instead=AGAIN)

    body = stage.program.body
    if len(body) != 1 or not isinstance(body[0], Train):
        refuse(f"the stage {stage.name!r} trains in rounds, or in several lessons", "program")
    (old,), (new,) = was.values(), now.values()
    end = max(old.values())
    for owner, steps in new.items():
        train = plan.train(owner)
        if steps == old[owner]:
            continue
        where = f"agents.{owner}.train"
        if old[owner] < end:
            refuse(f"{owner} ended {end - old[owner]:,} steps before its stage did", "--epochs")
        if train.schedule is not None and counts_all(train.schedule):
            refuse(f"{train.schedule.name} depends on how many updates there are in all", f"{where}.schedule")
        if old[owner] % train.accumulate:
            refuse(f"the last update was of fewer than {train.accumulate} batches", f"{where}.accumulate")


def _readers(plan: Plan, stages: set[str]) -> set[str]:
    """The stages that wait for some, also through others."""
    found: set[str] = set()
    while more := {one.name for one in plan.stages if one.waits & (stages | found)} - found:
        found |= more
    return found - stages


# -- the folder --------------------------------------------------------------------------------------------------------


def _copied(
    root: Path, known: dict[str, Any], plan: Plan, checked: Checked, more: dict[str, dict[str, int]], anew: set[str],
    wanted: Mapping[str, int],
) -> Path:  # fmt: skip
    """Make the longer run's folder, as if it had been interrupted where the shorter one ended; returns where it is.

    It has its name only once it is whole.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    draft = Folder.make(fresh(root.parent, f".{stamp}"))
    try:
        begun = {key: value for key, value in known["begun"].items() if key != "collect"}
        draft.asked(plan, checked, None, begun)
        by = {name or "train": epochs for name, epochs in wanted.items()}
        manifest = {**asked(draft.root), RAISED: {"of": str(root.resolve()), "epochs": by}}
        write_json(draft.root / MANIFEST, manifest)
        source = Checkpoints(Folder.at(root).checkpoints, known.get(IDENTITY, ""), plan.spec.seed)
        target = Checkpoints(draft.checkpoints, manifest[IDENTITY], plan.spec.seed)
        for stage in plan.stages:
            if stage.name not in anew:
                _checkpoint(source, target, stage, plan, more.get(stage.name), root)
        for folder in (STREAMS, ENDPOINTS):
            if (root / folder).is_dir():
                shutil.copytree(root / folder, draft.root / folder)
        write(draft.root / LOG, "".join(_log(root / LOG, {*more}, anew)))
        path = fresh(root.parent, stamp)
        draft.root.rename(path)  # onto an empty folder
    except BaseException:
        shutil.rmtree(draft.root, ignore_errors=True)
        raise
    return path


def _checkpoint(
    source: Checkpoints, target: Checkpoints, stage: Stage, plan: Plan, more: dict[str, int] | None, root: Path
) -> None:
    """Copy a stage's last checkpoint; of one that trains longer, as it stood before its last step was its end."""
    folder = source.last(stage.name)
    state = source.state(folder) if folder is not None else None
    if state is not None and more is not None and (gone := sorted(set(state["teaching"]["stopped"]) & more.keys())):
        what = f"{', '.join(gone)} stopped early: more epochs would not train it"
        raise MeshError(what, file=str(root), where="--epochs", instead="agents that trained to the end")
    if state is not None and more is not None and any(plan.train(name).watches for name in more):
        folder, state = _before_best(source, stage)
    if folder is None or state is None:
        what = f"the stage {stage.name!r} has no checkpoint from which it could go on"
        raise MeshError(what, file=str(root), instead=AGAIN)
    if more is not None:
        _reopen(stage, state, more)
    path = target.next(stage.name)
    parts = [name for name in json.loads(read(folder / CHECKPOINT))["sha256"] if name.startswith(f"{HOSTS}/")]
    (path / HOSTS).mkdir(parents=True)
    for name in parts:
        shutil.copyfile(folder / name, path / name)
    target.complete(stage.name, path, parts, state)


def _before_best(source: Checkpoints, stage: Stage) -> tuple[Path | None, dict[str, Any] | None]:
    """The checkpoint with the last weights, before the best of them were put in their place; None where it is gone."""
    for folder in sorted((source.root / stage.name).glob("[0-9]*"), reverse=True):
        state = read_json(folder / STATE)
        if state is not None and not state["finished"] and state["teaching"]["budget"] is not None:
            at, budget = state["at"], state["teaching"]["budget"]
            if at[-1] == max(budget.values()) and not source.fault(stage.name, folder, ()):
                return folder, state
    return None, None


def _reopen(stage: Stage, state: dict[str, Any], more: dict[str, int]) -> None:
    """Have a stage stand at the last step of its one phase, with more of them to come."""
    teaching = state["teaching"]
    (line,) = stage.program.trains()
    if state["finished"]:
        state["at"] = [0, teaching["cursor"][line.key]]
    teaching |= {"cursor": {}, "visited": [], "budget": more}
    state["finished"] = False


def _log(path: Path, more: set[str], anew: set[str]) -> Iterator[str]:
    """The lines of a log that the longer run would have written, too: not of stages' ends, nor of what comes after."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        told = json.loads(line)
        kind, stage = told.get("event"), told.get("stage")
        last = kind == kinds.Evaluated.kind and told.get("epoch") is None and (not stage or stage in more)
        ended = kind == kinds.StageFinished.kind and stage in more
        if not (last or ended or stage in anew or kind == kinds.RunFinished.kind):
            yield line
