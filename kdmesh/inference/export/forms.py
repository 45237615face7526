"""The forms by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError, nearest
from kdmesh.inference.export.gguf import FORMS as GGUF
from kdmesh.inference.export.int8 import Int8
from kdmesh.inference.export.onnx import Onnx
from kdmesh.inference.export.torch_export import TorchExport

if TYPE_CHECKING:
    from kdmesh.inference.export.form import Form

FORMS: dict[str, Form] = {form.name: form for form in (Onnx(), Int8(), TorchExport())}


def form_of(name: str) -> Form:
    """MeshError for a name of none."""
    if name not in FORMS:
        raise MeshError(f"found {name!r}", where="--to", instead=nearest(name, [*FORMS, *GGUF], "forms"))
    return FORMS[name]
