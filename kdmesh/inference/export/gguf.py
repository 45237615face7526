"""A language model as GGUF, by the converter of a checkout of llama.cpp that the user names; for Ollama, a Modelfile.

The converter is the user's program: it is run as a process of its own, on the agent's folder. The file is then served
on loopback, where `xllamacpp` is installed, and asked the same as the agent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.files import REFERENCE, sha256, write, write_json
from kdmesh.inference.export import llama_server, owed
from kdmesh.inference.export.exporting import RECORD, Exported, placed, refuse_folder, score
from kdmesh.inference.export.modelfile import modelfile
from kdmesh.inference.export.standing import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained

FORMS = {"gguf": "GGUF", "ollama": "GGUF for Ollama"}
SCRIPT, FILE, MODELFILE = "convert_hf_to_gguf.py", "model.gguf", "Modelfile"
TYPES = ("f16", "f32", "bf16", "q8_0")
TOLERANCE = 0.5  # of a log-probability: llama.cpp rounds what it multiplies, too
INSTEAD = f"--llama-cpp DIR, a checkout of llama.cpp: the folder that has {SCRIPT}"
LONGEST = 200  # characters of what the converter says


def export(
    trained: Trained,
    to: str,
    folder: Path,
    checkout: str | None,
    numbers: str = TYPES[0],
    tolerance: float | None = None,
    inputs: Inputs | None = None,
    label: str | None = None,
    told: Callable[[int], None] = lambda done: None,
    name: str = "",
) -> Exported:
    """Convert an agent's folder into ``folder``; ``to``: `gguf` or `ollama`. Nothing is left where that fails.

    ``inputs``: texts on which the file, served, and the agent are scored, ``label``: see ``evaluate``. MeshError for an
    agent that is no language model, or has an adapter or weights elsewhere, where the converter is not there or
    refuses, and where the file, served, is further from the agent than ``tolerance`` of a log-probability.
    """
    _refuse(trained)
    name = name or trained.config.agent
    owed.wrong_name(origins := owed.origin(trained.root), name)
    script = _script(checkout)
    if inputs is not None and (why := llama_server.missing()):
        raise MeshError(f"{why}, which would serve the file", where="--data", instead="pip install xllamacpp")
    refuse_folder(folder)
    with placed(folder) as draft:
        _convert(script, trained, draft / FILE, numbers)
        if to == "ollama":
            write(draft / MODELFILE, modelfile(trained, f"./{FILE}"))
        found, scored = _served(
            trained, draft / FILE, TOLERANCE if tolerance is None else tolerance, inputs, label, told
        )
        owed.keep(origins, name, draft)
        record = {
            "name": name,
            "kdmesh_export": 1,
            "format": to,
            "file": FILE,
            "agent": trained.config.agent,
            "task": trained.config.task,
            "numbers": numbers,
            "made_from": {one.name: sha256(one) for one in sorted(trained.root.glob("*.safetensors"))},
            "made_by": {SCRIPT: sha256(script)},
            "files": {one.name: sha256(one) for one in sorted(draft.iterdir())},
            "versions": {name: version(name) for name in ("kdmesh", "torch", "transformers")},
            "compared": found,
            **({"scored": scored} if scored is not None else {}),
        }
        write_json(draft / RECORD, record)
    return Exported(folder, record)


def _served(
    trained: Trained,
    file: Path,
    tolerance: float,
    inputs: Inputs | None,
    label: str | None,
    told: Callable[[int], None],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """How a file compares with its agent, and both's scores; that nothing could serve it, where that is so."""
    if why := llama_server.missing():
        return {"served": False, "why": why}, None
    with llama_server.served(trained, file) as ask:
        found = llama_server.compared(trained, ask, tolerance)
        if inputs is None:
            return found, None
        width = trained.module.model.net.get_output_embeddings().weight.shape[0]
        stands = StandIn.of(trained, lambda x: llama_server.log_probs(ask, x, width), width, together=1)
        return found, score(trained, stands, inputs, label, told)


def _refuse(trained: Trained) -> None:
    """Agents whose folder the converter cannot read as what was measured."""
    who, root = trained.config.agent, str(trained.root)
    if not trained.writes:
        what = f"{who} learned {trained.config.task}, and GGUF is for language models here"
        raise MeshError(what, file=root, where="task", instead="--to onnx or --to int8")
    if trained.module.encoder.two_parts:
        what = f"{who} reads with one part and writes with another, which is not tried as GGUF"
        raise MeshError(what, file=root, where="model", instead="its folder itself: transformers reads it")
    if trained.config.adapted == "prefix":
        what = f"{who} is a model with a prefix beside it, which no file of GGUF has"
        raise MeshError(what, file=root, where="model.hf.prefix", instead="low-rank updates (`lora`): they are merged")
    if (trained.root / REFERENCE).is_file():
        what = f"{who}'s weights stand elsewhere, and its folder refers to them"
        raise MeshError(what, file=root, where=REFERENCE, instead="that folder, or a run with `saved: copy`")


def _script(checkout: str | None) -> Path:
    if checkout is None:
        raise MeshError("GGUF is written by the converter of llama.cpp", where="--llama-cpp", instead=INSTEAD)
    root = Path(checkout)
    if not root.is_dir():
        raise MeshError(f"there is no folder {root}", where="--llama-cpp", instead=INSTEAD)
    if not (root / SCRIPT).is_file():
        raise MeshError(f"{root} has no {SCRIPT}", where="--llama-cpp", instead=INSTEAD)
    return root / SCRIPT


def _convert(script: Path, trained: Trained, out: Path, numbers: str) -> None:
    """Run the converter. MeshError with its own last words where it fails."""
    words = [sys.executable, script.name, trained.root.resolve(), "--outfile", out.resolve(), "--outtype", numbers]
    hidden = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [*map(str, words)], cwd=script.parent, env=os.environ | hidden, capture_output=True, text=True, errors="replace"
    )
    if done.returncode == 0 and out.is_file():
        return
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["it says nothing"]
    instead = "a newer checkout, or a model and tokenizer of an architecture that it knows"
    if said[-1].startswith("ModuleNotFoundError"):
        instead = "pip install what its requirements name"
    what = f"{script.name} does not convert {trained.config.agent}: {said[-1][-LONGEST:]}"
    raise MeshError(what, where="--llama-cpp", instead=instead)
