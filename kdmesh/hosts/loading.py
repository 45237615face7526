"""An agent's folder read again: ``kdmesh.load``. Whatever is damaged in it is one MeshError that says what."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from kdmesh.errors import MeshError
from kdmesh.files import CONFIG, OURS, RULE, WEIGHTS, found_at, link_outside, read, reason
from kdmesh.hosts.bounds import bounded
from kdmesh.hosts.compression.int8 import quantize
from kdmesh.hosts.modules import imported, read_weights, refuse_weights
from kdmesh.hosts.references import follow
from kdmesh.hosts.saved_rules import load_rule
from kdmesh.hosts.scaled import scale
from kdmesh.hosts.taps import AtExit
from kdmesh.imports import import_path, makes
from kdmesh.plugins import registry
from kdmesh.spec import DEFAULT_TASK, ModelRef, SamplingSpec
from kdmesh.spec.personal import PersonalSpec
from kdmesh.spec.train import Precision
from kdmesh.streams.learned import carry, in_header
from kdmesh.streams.prepared import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = 1 << 26  # the largest config.json that is read: names of classes take most of it
AGENT = "runs/<name>/<time>/agents/<agent>"


class ImageForm(BaseModel):
    """How image files became samples: height and width to which they were scaled, and channels they were brought to."""

    model_config = ConfigDict(strict=True, extra="ignore")

    resize: tuple[int, int] | None = Field(None, strict=False)
    mode: Literal["grey", "rgb"] | None = None


class Writes(BaseModel):
    """How the texts of a language model were measured: ``rows`` prompts were written on together."""

    model_config = ConfigDict(extra="ignore")

    decoding: SamplingSpec
    reasoning: list[str] | None = Field(None, min_length=2, max_length=2)
    rows: int = Field(ge=1)


class Config(BaseModel):
    """How an agent's module is built again: ``config.json``, or of a model of texts ``kdmesh.json``."""

    model_config = ConfigDict(strict=True, extra="ignore")

    agent: str
    model: dict[str, Any] | str | None
    task: str = DEFAULT_TASK
    module: str = ""
    quantize: Literal["int8"] | None = None
    exit: str | None = None
    input_shape: list[int] = []
    classes: int = 0
    labels: list[str] | None = None
    max_length: int | None = None
    adapted: str | None = None
    learned_from: list[dict[str, Any] | None] = [None]
    scale: dict[str, float] | None = None
    task_settings: dict[str, Any] = {}
    columns: list[str] = []
    reads: dict[str, str | list[str]] = {}
    images: ImageForm | None = None
    class_numbers: list[int] | None = None
    metrics: list[Any] = []
    precision: Precision = "fp32"
    writes: Writes | None = None
    over: Literal["truncate", "drop", "refuse"] = "truncate"
    threads: int = Field(1, ge=1, le=4096)
    sees: str = ""
    personal: PersonalSpec | None = None


def described(folder: str | Path) -> Config:
    """What an agent's folder says of its model; nothing is built. MeshError for a folder that is none."""
    root = Path(folder)
    own = root / OURS
    return _config(own if own.is_file() else root / CONFIG)


def load(folder: str | Path, code: bool = True, home: Path | None = None) -> nn.Module:
    """See :func:`kdmesh.api.load`. ``home``: the folder that this one will be, from where it refers to others."""
    root = Path(folder)
    with readable(root), bounded("model"):
        # What the hub has fetched are links into the folder beside.
        around = root.resolve().parents[1] if root.resolve().parent.name == "snapshots" else root
        if (link := link_outside(root, around)) is not None:
            raise MeshError(f"{link.name} links outside of this folder", file=str(root), instead="a copy of it")
        if (root / RULE).is_file():
            return load_rule(root)
        own, config = root / OURS, described(root)
        if config.model is None:
            raise MeshError(
                f"{config.agent} was given from Python as {config.module}; its class is not stored",
                file=str(root),
                instead=f"build the module yourself and load {root / WEIGHTS} with safetensors",
            )
        elsewhere = follow(root, home)
        if own.is_file():
            from kdmesh.text.saved import load_images, load_saved

            of_images, home_of = bool(config.input_shape), elsewhere[0].parent if elsewhere else None
            told = config.model_dump()
            module: nn.Module = load_images(root, told) if of_images else load_saved(root, told, home_of)
        else:
            ref, file = _ref(config), elsewhere[0] if elsewhere else root / WEIGHTS
            if not ref.is_import:  # first without memory: sizes in a damaged folder may be any
                with torch.device("meta"):
                    refuse_weights(_build(ref, config, root, code), file, "")
            module = _build(ref, config, root, code)
            read_weights(module, file, "", keep=not elsewhere)
            if config.exit is not None and config.exit not in dict(module.named_modules()):
                raise MeshError(
                    f"no layer {config.exit!r} in this model", where="exit", instead="a complete copy of it"
                )
            module = (AtExit(module, config.exit) if config.exit else module).eval()
        if config.scale is not None and not (root / SETTINGS).is_file():  # else it is scaled before it is prepared
            scale(module, config.scale["divided_by"])
        if config.quantize is not None:
            quantize(module)
        headers = [in_header(file) for file in elsewhere or sorted(root.glob("*.safetensors"))]
        records = next((one for one in headers if one is not None), config.learned_from)
        carry(module, records)  # a mesh that it is given to looks there
        return module


@contextmanager
def readable(root: Path) -> Iterator[None]:
    """Whatever reading a folder raises becomes a MeshError with the folder's name: files may hold anything."""
    try:
        yield
    except MeshError as error:
        error.file = error.file or str(root)
        raise
    except Exception as error:
        message = next(iter(str(error).splitlines()), "")
        raise MeshError(
            f"this folder is damaged: {type(error).__name__}: {message}",
            file=str(root),
            instead="a complete copy of it",
        ) from error


def _config(path: Path) -> Config:
    try:
        return Config.model_validate(json.loads(read(path, most=BYTES)))
    except ValidationError as error:
        first = error.errors()[0]
        raise MeshError(
            f"{path.name} is damaged: {first['msg']}",
            file=str(path.parent),
            where=".".join(map(str, first["loc"])),
            instead="a complete copy of the folder",
        ) from None
    except OSError as error:
        why = {
            "folder": f"its {path.name} {error.strerror}" if path.exists() else f"it has no {path.name}",
            "file": "it is a file",
        }.get(what := found_at(path.parent), f"it {what}")
        raise MeshError(f"this is not an agent's folder: {why}", file=str(path.parent), instead=AGENT) from None
    except (ValueError, RecursionError) as error:
        why = f"its {path.name} is damaged: {reason(error)}"
        raise MeshError(f"this is not an agent's folder: {why}", file=str(path.parent), instead=AGENT) from None


def _ref(config: Config) -> ModelRef:
    """The model that a folder names. MeshError for what is no name with settings, and for figures that do not fit."""
    try:
        ref = ModelRef.model_validate(config.model)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise MeshError(f"config.json is damaged: {message}", where="model", instead="a complete copy of it") from None
    by = 1.0 if config.scale is None else config.scale.get("divided_by", math.nan)
    wrong = {
        "scale": not math.isfinite(by) or by <= 0,
        "input_shape": min(config.input_shape, default=1) < 1,
        "classes": config.classes < 0,
    }
    for name in (name for name, bad in wrong.items() if bad):
        found = f"found {str(getattr(config, name))[:40]}"
        raise MeshError(f"config.json is damaged: {found}", where=name, instead="a complete copy of it")
    return ref


def _build(ref: ModelRef, config: Config, root: Path, code: bool) -> nn.Module:
    """The module without its weights."""
    if ref.is_import:
        instead = f"build the module yourself and load {root / WEIGHTS} with safetensors"
        if not code:
            raise MeshError(f"would import {ref.name}", file=str(root), where="model", instead=instead)
        module = imported(ref, "model", config.input_shape, config.classes, instead)
    else:
        offer = registry().find("models", ref.name)
        more: dict[str, Any] = {}
        given = dict(ref.config)
        if offer.fixed:
            size = given.pop("size", None)
            if type(size) is not int or size < 1:
                raise MeshError("its file has no size", where="model", instead="a complete copy of the folder")
            more = {"size": size, "labels": config.labels}
            if (odd := given.get("trusted")) and not code:
                what = f"would import {', '.join(map(str, odd))}, which its mesh trusts"
                raise MeshError(what, file=str(root), where="model", instead="with code")
        module = offer.make(given, input_shape=torch.Size(config.input_shape), classes=config.classes, **more)
    if not isinstance(module, nn.Module):
        raise MeshError(f"{ref.name} made a {type(module).__name__}, no nn.Module", file=str(root), where="model")
    return module


def loadable(ref: ModelRef | None) -> bool:
    """Whether :func:`load` can build this model: of what Python gave nothing is stored, and it calls no function that
    does not say what it makes.
    """
    return ref is not None and (not ref.is_import or makes(import_path(ref.name, "model"), (nn.Module,)))
