"""A run's folder: what was asked, what was planned, what happened, and what came out."""

from __future__ import annotations

import json
import platform
import secrets
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.checks.texts import reports
from kdmesh.contracts.run_files import (
    ANSWERS,
    CANARIES,
    CHECKPOINTS,
    COSTS,
    FORMAT,
    GIVEN,
    LOG,
    MANIFEST,
    PERSONAL,
    RESOLVED,
    SUMMARY,
    SUMS,
)
from kdmesh.engine import sums
from kdmesh.engine.collect import fresh
from kdmesh.engine.inputs import code, inputs, plugins
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import inside, read_json, reason, sha256, write, write_all, write_json
from kdmesh.hosts.remote import RemoteHost
from kdmesh.privacy.summary import line_of
from kdmesh.provenance import bom, content
from kdmesh.spec.data import licence_of
from kdmesh.spec.yaml12 import dump
from kdmesh.streams.private import told_part

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.engine.collect import Place
    from kdmesh.engine.context import RunContext
    from kdmesh.graph.plan import Plan

PACKAGES = (
    "kdmesh", "torch", "transformers", "tokenizers", "peft", "ray", "networkx", "pydantic", "numpy", "scikit-learn",
    "safetensors",
)  # fmt: skip
AGENTS, RULES = "agents", "consensus"  # folders, and the parts of a summary that are about what is in them
IDENTITY = "run"  # the manifest's field of a name that no other run has


class Folder:
    """``runs/<name>/<time>/``. Everything in it is text, JSON or safetensors."""

    def __init__(self, out: Path, name: str, collect: Place | None = None) -> None:
        """``collect``: where this folder is taken at the end, to a folder that has its name."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        if collect is not None:  # other machines collect there, too
            stamp = f"{stamp}-{secrets.token_hex(2)}"
        try:
            self.root = fresh(out / name, stamp)
        except OSError as error:
            raise MeshError(
                f"cannot write the run's folder: {reason(error)}", where="--out", instead="a folder that is writable"
            ) from None
        self.place = collect and collect.below(name, self.root.name)

    @classmethod
    def at(cls, root: Path, place: Place | None = None) -> Folder:
        """The folder of a run that was begun, and the place where it is collected."""
        folder = cls.__new__(cls)
        folder.root, folder.place = root, place
        return folder

    @classmethod
    def make(cls, root: Path) -> Folder:
        """The folder of a part of a run, at a place of its own, which a kill may have left half made."""
        root.mkdir(parents=True, exist_ok=True)
        return cls.at(root)

    @property
    def events(self) -> Path:
        """The log of events."""
        return self.root / LOG

    @property
    def checkpoints(self) -> Path:
        """The checkpoints' folder."""
        return self.root / CHECKPOINTS

    def asked(self, plan: Plan, checked: Checked, source: str | None, begun: dict[str, Any]) -> None:
        """Write the file as given, the long form with every default, and the manifest with how it was ``begun``."""
        if source is not None:
            write(self.root / GIVEN, source)
        resolved = plan.resolved().model_dump(mode="json", by_alias=True, exclude_none=True)
        write(self.root / RESOLVED, dump(resolved))
        known = {"format": FORMAT, IDENTITY: secrets.token_hex(8), **manifest(plan, checked), "begun": begun}
        known["file"] = sha256(self.root / GIVEN) if source is not None else None
        self.json(MANIFEST, known)
        if checked.table.prepared is not None:
            write_all(self.root, checked.table.prepared.files())
        if checked.table.personal is not None:
            write(self.root / PERSONAL, checked.table.personal.text())
        if checked.table.planted is not None:
            write(self.root / CANARIES, "".join(f"{json.dumps(one)}\n" for one in checked.table.planted.lines()))

    def json(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file."""
        write_json(self.root / name, value)

    def text(self, name: str, value: str) -> None:
        """Write a text file."""
        write(self.root / name, value)

    def agents(self, run: RunContext, summary: dict[str, Any]) -> None:
        """Have every host write the folders of its agents, and of rules with a state that it owns, or hand them over
        where it does not see this one.

        What comparing each with its agent or rule showed is noted in the summary, as ``export``; the sums of what was
        written are kept.
        """
        assert run.checkpoints is not None
        agents = {name: facts for name, facts in summary["agents"].items() if name in run.host_of}
        rules = {name: facts for name, facts in summary["consensus"].items() if run.plan.evaluator(name)}
        root, place, saved = self.root.resolve(), run.checkpoints.place, []
        spent = {name: line_of(one) for name, one in summary.get("privacy", {}).items()}
        more = {"accounts": spent} if spent else {}
        for name, facts in agents.items():
            folder = place(run.host_of[name], inside(root / AGENTS, name))
            saved.append(run.submit(name, RemoteHost.save_agent, name, folder, facts | more))
        for name in rules:
            host = run.plan.evaluator(name)
            folder = place(host, inside(root / RULES, name))
            saved.append(run.backend.submit(host, RemoteHost.save_rule, name, folder))
        about = [(AGENTS, *item) for item in agents.items()] + [(RULES, *item) for item in rules.items()]
        names = []
        for (kind, name, facts), export in zip(about, run.backend.get(saved), strict=True):
            if export.files:
                write_all(inside(root / kind, name), export.files)
            if export.proof:
                facts["export"] = export.proof
            names += [f"{kind}/{name}/{file}" for file in export.files]
        sums.keep(self.root, names, anew=True)

    def answers(self, content: bytes | None) -> None:
        """Write how every test sample was answered, if it is kept, and keep the file's sum."""
        if content is not None:
            write(self.root / ANSWERS, content)
            sums.keep(self.root, [ANSWERS])

    def summarise(self, summary: dict[str, Any]) -> None:
        """Write the summary, once the agents' folders are there, and its costs by themselves; keep their sums."""
        parts = {COSTS: summary.get("costs"), SUMMARY: summary}  # a part that an older version made has no costs
        written = {name: value for name, value in parts.items() if value is not None}
        for name, value in written.items():
            self.json(name, value)
        sums.keep(self.root, written)

    def provenance(self, summary: dict[str, Any]) -> None:
        """Write from what the models came: the bill of materials, and rows on training content; keep their sums."""
        known = read_json(self.root / MANIFEST) or {}
        self.json(bom.NAME, bom.as_before(bom.bom(known, summary), read_json(self.root / bom.NAME)))
        self.text(content.NAME, content.content(known, summary))
        sums.keep(self.root, [bom.NAME, content.NAME])

    def made(self) -> tuple[dict[str, Any] | None, str]:
        """The summary of a part of a run if it stands whole; else None, and what lacks, if the part was ever made."""
        summary = read_json(self.root / SUMMARY)
        if summary is None and not (self.root / SUMS).exists():
            return None, ""
        why = sums.fault(self.root, [SUMMARY])
        return (None, why) if why else (summary, "")

    def unlike(self, summary: dict[str, Any]) -> RunFailed | None:
        """What to raise at the very end where a saved folder does not match its agent: which, and by how much."""
        saved = [(kind, *item) for kind in (AGENTS, RULES) for item in summary[kind].items()]
        proofs = [(kind, name, facts.get("export", {})) for kind, name, facts in saved]
        wrong = [(kind, name, proof) for kind, name, proof in proofs if proof.get("problem")]
        if not wrong:
            return None
        problems = "; ".join(
            f"{kind}/{name}{'/' if proof['file'] else ''}{proof['file']}: {proof['problem']}"
            for kind, name, proof in wrong
        )
        what = "agent" if all(kind == AGENTS for kind, _, _ in wrong) else "rule or agent"
        return RunFailed(
            f"what was saved of {', '.join(name for _, name, _ in wrong)} does not match the {what} that was measured: "
            f"{problems}",
            file=str(self.root),
            instead="the training is done: summary.json has its figures, checkpoints/ its weights as they were, "
            "and every other folder of agents/ is right",
        )

    def collect(self) -> str:
        """Take the folder to its place, if it has one; says where it is. RunFailed where that place fails."""
        if self.place is None:
            return str(self.root)
        self.place.put(self.root)
        return f"{self.place.url}  (and {self.root})"

    def salvage(self) -> None:
        """Take there what there is of a run that ended early, and say so; another failure ends nothing any more."""
        if self.place is None:
            return
        try:
            self.place.put(self.root)
        except RunFailed as failed:
            message = str(failed)
        else:
            message = f"what there is was collected: kdmesh resume {self.place.url}"
        print(f"kdmesh: {message}", file=sys.stderr, flush=True)


@cache  # to read it takes a millisecond a package, and a run of many seeds writes many manifests
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def made_of(plan: Plan, checked: Checked) -> dict[str, Any]:
    """What runs of one mesh that are compared have alike, on any split: sums of data, weights, folders, code."""
    known = manifest(plan, checked)
    data = {name: known["data"][name] for name in ("source", "samples", *checked.table.fingerprint)}
    return {"data": data, **{part: known[part] for part in ("teachers", "inputs", "code", "plugins")}}


def manifest(plan: Plan, checked: Checked) -> dict[str, Any]:
    """Versions, seed, hashes and licences: what is needed to trust or repeat the run."""
    table = checked.table
    return {
        "seed": plan.spec.seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "data": {
            "source": table.source,
            "licence": licence_of(plan.spec.data, table.licence),
            "samples": len(table),
            **(told_part(table, checked.streams) if plan.withholding else table).fingerprint,
            **({"personal": table.personal.counts()} if table.personal is not None else {}),
            **({"canaries": table.planted.counts()} if table.planted is not None else {}),
            "streams": {name: len(stream.rows) for name, stream in checked.streams.items()},
            **({"read_by": reports(plan, checked)} if checked.reading.texts else {}),
        },
        "teachers": {
            name: {"file": agent.weights, "sha256": sha256(Path(agent.weights))}
            for name, agent in plan.spec.agents.items()
            if agent.weights
        },
        "inputs": inputs(plan.spec),
        "code": code(plan.spec),
        "plugins": plugins(plan.spec),
        "given": checked.given,
        "writers": checked.writers,
        "licences": checked.licences.manifest(),
        "mesh": plan.resolved().model_dump(mode="json", by_alias=True, exclude_none=True),
    }
