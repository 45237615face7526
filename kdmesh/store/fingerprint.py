"""On what values were computed: where it is the same, the same forward gives the same bits."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from kdmesh.errors import MeshError
from kdmesh.store.key import canonical

SWITCHES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "CUBLAS_WORKSPACE_CONFIG",
)
"""Variables of the environment that choose among kernels, whose bits differ."""
PRECISIONS = {"cpu": ("mkldnn", "mkldnn.matmul", "mkldnn.conv"), "cuda": ("cuda.matmul", "cudnn", "cudnn.conv")}
"""Parts of ``torch.backends`` that say in what precision float32 is multiplied, by kind of device."""
WORDS = {
    "version": "torch",
    "build": "the build of torch",
    "capability": "CPU instructions",
    "threads": "threads",
    "device": "kind of device",
    "name": "device",
    "settings": "settings of torch",
}


@dataclass(frozen=True)
class Fingerprint:
    """What decides the bits of a forward, beside the model and its batch.

    Attributes:
        version: that of torch.
        build: a hash of how it was compiled, with the libraries it computes with.
        capability: the CPU's instructions that torch uses, as ``AVX512``.
        threads: those that one operation is spread over.
        device: its kind, ``cpu`` or ``cuda``.
        name: the device's model.
        settings: of torch and the environment, those that choose among kernels, as text.
    """

    version: str
    build: str
    capability: str
    threads: int
    device: str
    name: str
    settings: str = ""

    @classmethod
    def here(cls, device: torch.device | str = "cpu", threads: int | None = None) -> Fingerprint:
        """That of this process; ``threads``: those that forwards use, where it is not the process's number."""
        kind = torch.device(device)
        return cls(
            version=str(torch.__version__),
            build=_build(),
            capability=torch.backends.cpu.get_cpu_capability(),
            threads=torch.get_num_threads() if threads is None else threads,
            device=kind.type,
            name=torch.cuda.get_device_name(kind) if kind.type == "cuda" else _processor(),
            settings=_settings(kind.type),
        )

    @classmethod
    def of(cls, record: object) -> Fingerprint:
        """Of what :meth:`record` gave. MeshError for anything else."""
        if not isinstance(record, Mapping):
            record = {}
        texts = {name: record.get(name, "") for name in WORDS if name != "threads"}
        threads = record.get("threads")
        if not all(isinstance(one, str) for one in texts.values()) or type(threads) is not int:
            raise MeshError("this is no fingerprint of what computed a shard", instead="one that this version wrote")
        return cls(threads=threads, **{name: str(one) for name, one in texts.items()})

    def record(self) -> dict[str, str | int]:
        """Its fields as JSON has them."""
        return {name: getattr(self, name) for name in WORDS}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for it."""
        return sha256(canonical(self.record())).hexdigest()[:16]

    def differs(self, other: Fingerprint) -> str:
        """In words, where this one is not the other: ``threads 4, not 1``; nothing where they are the same."""
        unlike = [name for name in WORDS if getattr(self, name) != getattr(other, name)]
        return ", ".join(
            WORDS[name] if name == "build" else f"{WORDS[name]} {_said(self, name)}, not {_said(other, name)}"
            for name in unlike
        )


def _said(one: Fingerprint, name: str) -> str:
    return str(getattr(one, name)) or "none"


@cache
def _build() -> str:
    return sha256(f"{torch.version.git_version}\n{torch.__config__.show()}".encode()).hexdigest()[:16]


@cache
def _processor() -> str:
    """The CPU's model, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = dict(line.split(":", 1) for line in lines[:40] if ":" in line)
    found = {name.strip(): value.strip() for name, value in told.items()}
    parts = (found.get(name, "") for name in ("model name", "cpu family", "model", "stepping"))
    return " ".join([*filter(None, parts)] or [platform.processor() or "unknown"]) + f" ({platform.machine()})"


def _settings(kind: str) -> str:
    """What is not as torch comes, in words; nothing on most machines."""
    said = [f"{name}={os.environ[name]}" for name in SWITCHES if os.environ.get(name)]
    with suppress(RuntimeError):  # refused where the newer names below are set
        if (precision := torch.get_float32_matmul_precision()) != "highest":
            said.append(f"matmul {precision}")
    for name in ("", *PRECISIONS["cuda" if kind == "cuda" else "cpu"]):
        place: Any = torch.backends
        for part in filter(None, name.split(".")):
            place = getattr(place, part, None)
        if (precision := getattr(place, "fp32_precision", "none")) not in ("none", "ieee"):
            said.append(f"{name or 'fp32'} {precision}")
    if not bool(torch.tensor(1e-40) * 1):
        said.append("no denormal numbers")
    if torch.are_deterministic_algorithms_enabled():
        said.append("deterministic")
    if not torch.backends.mkldnn.enabled:
        said.append("no mkldnn")
    if kind == "cuda":
        said += [f"cuda {torch.version.cuda}", f"cudnn {torch.backends.cudnn.version()}"]
        with suppress(RuntimeError):
            said += ["cudnn tf32"] if torch.backends.cudnn.allow_tf32 else []
        said += ["cudnn benchmark"] if torch.backends.cudnn.benchmark else []
    return " ".join(said)
