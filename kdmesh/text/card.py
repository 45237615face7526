"""The model card of an exported folder: who taught it, on what, how good it is, how to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.text.heads import IMAGE
from kdmesh.text.peft import ADAPTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.text.exported import Described


def card(
    name: str,
    model: Described,
    *,
    mesh: str,
    seed: int,
    role: str = "",
    teachers: Mapping[str, str | None] | Sequence[str] = (),
    data: str = "",
    data_licence: str = "",
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    refers: bool = False,
    disclosed: Sequence[str] = (),
) -> str:
    """Return README.md, with the front matter that the hub reads.

    ``teachers``: names, perhaps with their models' licences; ``metrics``: by split and name; ``refers``: the weights
    are elsewhere; ``disclosed``: what the mesh told of private samples. Nobody but who
    trained a model can license it, so that the licence is ``unknown`` where the one it started from states none.
    """
    front = ["---", f"license: {model.licence or 'unknown'}"]
    if model.hub:
        front.append(f"base_model: {model.base}")
    front += ["library_name: transformers", f"pipeline_tag: {(model.kind or model.head).pipeline}"]
    front += ["tags:", "- kdmesh", "- distillation", "---"]
    if isinstance(teachers, dict):
        told = [f"{teacher} (licence: {licence or 'not stated'})" for teacher, licence in teachers.items()]
    else:
        told = list(teachers)
    lines = [
        *front,
        "",
        f"# {name}",
        "",
        f"Trained by kdmesh in the mesh `{mesh}` (seed {seed}).",
        "",
        f"- role: {role or 'not stated'}",
        f"- taught by: {', '.join(told) or 'labels only'}",
        f"- started from: {model.base or 'random weights'}{_licence(model)}",
        f"- data: {data or 'given from Python'}; licence: {data_licence or 'not stated'}",
        *(
            f"- {split}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items())
            for split, values in (metrics or {}).items()
        ),
        *(f"- {one}" for one in disclosed),
        "",
        *(_referred(name) if refers else _usage(name, model)),
        "",
    ]
    return "\n".join(lines)


def _licence(model: Described) -> str:
    return f" (licence: {model.licence or 'not stated'})" if model.base else ""


def _referred(name: str) -> list[str]:
    """How to run weights that are elsewhere."""
    return [
        "```python",
        "import kdmesh",
        f'model = kdmesh.load("{name}")  # this folder',
        'print(model(["A text."]))',
        "```",
        "",
        "It was not trained here: `reference.json` says which files it was read from, and their sha256.",
    ]


def _usage(name: str, model: Described) -> list[str]:
    """How to run it without kdmesh."""
    auto = (model.kind or model.head).auto
    adapted = model.adapted == "prefix"
    reader, named = ("AutoImageProcessor", "processor") if model.head == IMAGE else ("AutoTokenizer", "tokenizer")
    lines = ["```python", f"from transformers import {reader}, {auto}", ""]
    if model.head == IMAGE:
        lines[1:2] = ["from PIL import Image", lines[1]]
    if adapted:
        lines[1:2] = ["from peft import PeftModel", lines[1]]
    lines += [
        f'{named} = {reader}.from_pretrained("{name}")  # this folder',
        f'model = {auto}.from_pretrained("{name}").eval()',
    ]
    if adapted:
        lines.append(f'model = PeftModel.from_pretrained(model, "{name}/{ADAPTER}").eval()')
    lines += [*model.usage(), "```"]
    if adapted:
        lines += ["", f"It was tuned by a prefix, in `{ADAPTER}/`: without it, this is the model that it started from."]
    elif model.adapted == "lora":
        lines += ["", f"Its low-rank updates are merged into these weights; `{ADAPTER}/` has them by themselves."]
    return lines
