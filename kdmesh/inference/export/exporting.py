"""An agent's folder becomes a file of another form, with ``export.json`` beside it; whole, compared, or not at all."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import DRAFT, read_json, sha256, write, write_json
from kdmesh.hosts.modules import output
from kdmesh.inference.evaluating import evaluate
from kdmesh.inference.export import owed
from kdmesh.inference.export.graph import Graph, graph_of
from kdmesh.inference.export.standing import stand_in
from kdmesh.inference.export.tracing import quiet, refused
from kdmesh.inference.trained import Settled
from kdmesh.signals.lazy import dense
from kdmesh.streams.prepared import NUMBERS, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kdmesh.inference.export.form import Answers, Form
    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained

RECORD = "export.json"
BATCHES = (1, 2, 7)
"""The numbers of samples by which a file is compared with its agent."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written: ``record`` is what ``export.json`` says."""

    folder: Path
    record: dict[str, Any]


def export(
    trained: Trained,
    form: Form,
    folder: Path,
    tolerance: float | None = None,
    inputs: Inputs | None = None,
    label: str | None = None,
    told: Callable[[int], None] = lambda done: None,
    name: str = "",
) -> Exported:
    """Write an agent in a form into ``folder``, compare it with the agent, and score both on labelled samples.

    Nothing is left where it cannot be written, where a logit or value is further from the agent's than ``tolerance``
    (1e-4 by default, of a form that rounds any), or where the samples cannot be scored; an export that stands there
    already then stays. ``name``: by which it is given to others, by default the agent's, as licences of what it learned
    from may ask: see :mod:`kdmesh.inference.export.owed`. MeshError says why.
    """
    form.refuse()
    name = name or trained.config.agent
    owed.wrong_name(origins := owed.origin(trained.root), name)
    if form.rounds and inputs is None and tolerance is None:
        what = f"{form.title} rounds, and nothing would say how good it still is"
        raise MeshError(what, where="--data", instead="--data FILE of labelled samples, or --tolerance X")
    tolerance = TOLERANCE if tolerance is None and not form.rounds else tolerance
    graph = graph_of(trained).eval()
    refuse_folder(folder)
    still = Settled(trained.module, trained.device, "fp32", trained.config.threads)
    with placed(folder) as draft, still:
        path = draft / form.file
        form.write(graph, path, trained.config.agent)
        with refused(f"{form.title} cannot run", trained.config.agent):
            answers = form.open(path, graph)
        compared = _compare(trained, graph, answers, form, tolerance)
        scored = None
        if inputs is not None:
            scored = score(trained, stand_in(trained, graph, answers), inputs, label, told)
        _keep_beside(trained, draft)
        owed.keep(origins, name, draft)
        record = {"name": name} | _record(trained, graph, form, draft, {**compared, "tolerance": tolerance}, scored)
        write_json(draft / RECORD, record)
    return Exported(folder, record)


def refuse_folder(folder: Path) -> None:
    """An export is only ever put into the place of another one."""
    instead = "--out with a folder that is not there"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise MeshError(f"{folder} is there, and no folder", where="--out", instead=instead)
    if not folder.parent.is_dir():
        raise MeshError(f"no folder {folder.parent}", where="--out", instead="a folder in one that is there")
    names = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    ours = (read_json(folder / RECORD) or {}).get("files", {}) if RECORD in names else {}
    if odd := sorted(names - {RECORD, *(ours if isinstance(ours, dict) else ())}):
        raise MeshError(f"{folder} holds {odd[0]}, which no export wrote", where="--out", instead=instead)


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A new folder, which takes its place once the block has ended; where that raises, nothing has changed."""
    draft = folder.with_name(f".{os.urandom(4).hex()}{DRAFT}")
    before = draft.with_name(f"{draft.name}.before")
    draft.mkdir()
    try:
        yield draft
        if folder.exists():
            folder.replace(before)
        draft.replace(folder)
    except BaseException:
        if before.exists() and not folder.exists():
            before.replace(folder)
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _compare(trained: Trained, graph: Graph, answers: Answers, form: Form, tolerance: float | None) -> dict[str, Any]:
    """The largest difference from the agent in float32. MeshError where it is larger than is allowed."""
    module = trained.module.model if trained.is_text else trained.module
    worst, at, widths = 0.0, "", set()
    for length, rows in product(graph.lengths, BATCHES):
        x = graph.drawn(rows, length)
        inputs = graph.given(x)
        wanted = dense(output(module(x))).float()
        with refused(f"{form.title} cannot run a batch of {rows} of", trained.config.agent), quiet():
            found = graph.rows(answers(inputs), x)
        if found.shape != wanted.shape:
            what = f"{form.title} gives {list(found.shape)} where {trained.config.agent} gives"
            raise MeshError(f"{what} {list(wanted.shape)}", where="--to", instead="another form")
        if trained.is_text:
            widths.add(inputs[0].shape[1])
        difference = float((found - wanted).abs().max())
        if math.isnan(difference) or difference > worst:
            worst, at = difference, f"batch of {rows}" + (f", {inputs[0].shape[1]} tokens" if widths else "")
    if math.isnan(worst) or (tolerance is not None and worst > tolerance):
        more_than = "" if tolerance is None else f", more than {tolerance:g}"
        what = f"{form.title} is {worst:.1e} from {trained.config.agent} ({at}){more_than}"
        more = f"--tolerance {_above(worst):g}, where that is near enough, or " if math.isfinite(worst) else ""
        raise MeshError(what, where="--tolerance", instead=f"{more}another form")
    return {"batches": list(BATCHES), "lengths": sorted(widths), "largest_difference": worst}


def _above(value: float) -> float:
    """The next number of one digit above."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit) * unit


def score(
    trained: Trained, exported: Trained, inputs: Inputs, label: str | None, told: Callable[[int], None]
) -> dict[str, Any]:
    """The metrics of the run on these samples, of the file and of the agent."""
    count = len(inputs)
    agent = evaluate(trained, inputs, label=label, told=told)
    own = evaluate(exported, inputs, label=label, told=lambda done: told(count + done))
    return {
        "data": inputs.path.name,
        **({"sha256": sha256(inputs.path)} if inputs.path.is_file() else {}),
        "samples": count,
        "exported": own,
        "agent": agent,
    }


def _keep_beside(trained: Trained, draft: Path) -> None:
    """What makes inputs of raw samples: the tokenizer, or how columns are prepared."""
    if trained.is_text:
        trained.module.encoder.tokenizer.save_pretrained(draft)
    for name in (SETTINGS, NUMBERS):
        if (path := trained.root / name).is_file():
            write(draft / name, path.read_bytes())


def _record(
    trained: Trained,
    graph: Graph,
    form: Form,
    draft: Path,
    compared: dict[str, Any],
    scored: dict[str, Any] | None,
) -> dict[str, Any]:
    config = trained.config
    sources = sorted(one for one in trained.root.iterdir() if one.is_file() and one.name != "README.md")
    return {
        "kdmesh_export": 1,
        "format": form.name,
        "file": form.file,
        "agent": config.agent,
        "task": config.task,
        "made_from": {one.name: sha256(one) for one in sources},
        "files": {one.name: sha256(one) for one in sorted(draft.iterdir())},
        "versions": {"kdmesh": version("kdmesh"), **form.versions(), **_of_texts(trained)},
        "inputs": [asdict(port) for port in graph.inputs],
        "outputs": [{**asdict(graph.output), "names": trained.names}],
        "raw": raw(trained),
        "compared": compared,
        **({"scored": scored} if scored is not None else {}),
    }


def _of_texts(trained: Trained) -> dict[str, str]:
    return {"transformers": version("transformers")} if trained.is_text else {}


def raw(trained: Trained) -> dict[str, Any]:
    """How a sample of the source becomes what the file takes: only what is true of this agent."""
    config = trained.config
    if trained.is_text:
        encoder = trained.module.encoder
        tokens = {"tokenizer": "tokenizer.json", "max_length": encoder.max_length, "pad": encoder.pad}
        return {**tokens, "reads": config.reads}
    return {
        **({"columns": config.columns} if config.columns else {}),
        **({"images": config.images.model_dump(mode="json")} if config.images is not None else {}),
        **({"divided_by": trained.divided_by} if trained.divided_by is not None else {}),
        **({"prepare": SETTINGS} if trained.prepared is not None else {}),
    }
