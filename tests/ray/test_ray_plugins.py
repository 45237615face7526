"""A plugin that is one file in a folder works on Ray's workers too, also on a Ray that was there before."""

from __future__ import annotations

import pytest

from kdmesh.cli import main

pytestmark = pytest.mark.ray

PLUGIN = '''
import torch

from kdmesh import hookimpl
from kdmesh.consensus import Mean
from kdmesh.offers import ConsensusOffer, SignalOffer
from kdmesh.signals.lazy import Lazy, dense


class Eighths(Lazy):
    """Logits in steps of an eighth, one byte each."""

    def __init__(self, eighths):
        self.eighths = eighths
        super().__init__(eighths.shape, torch.float32, eighths.device, False)

    def rows(self, start, stop, out=None):
        made = self.eighths[start:stop].float() / 8
        return made if out is None else out.copy_(made)

    def leaves(self):
        return (self.eighths,)

    def of(self, *rows):
        return Eighths(*rows)

    def narrow(self, vocabulary):
        return Eighths(self.eighths[:, :vocabulary])

    def detach(self):
        return self

    def to(self, device):
        return Eighths(self.eighths.to(device))

    def pack(self):
        return {"eighths": self.eighths}

    @classmethod
    def restore(cls, parts):
        return cls(parts["eighths"])


def coarse():
    return lambda value: Eighths((dense(value) * 8).clamp(-127, 127).round().to(torch.int8))


class Loudest(Mean):
    """The source with the largest logit has all the say; no paper."""

    def forward(self, values, *, logits, labels=None, present=None):
        return values.gather(0, logits.amax(-1).argmax(0)[None, :, None].expand(1, *values.shape[1:]))[0]


@hookimpl
def kdmesh_signals():
    here = f"{__name__}:Eighths"
    return [SignalOffer("coarse", f"{__name__}:coarse", form="logits", lazy=True, codec=here)]


@hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("loudest", f"{__name__}:Loudest", summary="the most certain source", spaces=("probs",))]
'''
MESH = """
name: loud
data: digits
agents: {a: {model: mlp}, b: {model: mlp}, s: {model: mlp}}
connect: [{ensemble: {teachers: [a, b], student: s, consensus: loudest, refresh: epoch}}]
flows:
  - {from: a, to: s, signal: coarse, objective: kl, refresh: epoch}
  - {from: b, to: s, signal: coarse, objective: mse, refresh: step}
train: {epochs: 2}
placement: spread
"""


def test_a_file_in_the_plugins_folder_reaches_the_workers(tmp_path, ray_session, monkeypatch, capsys):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "loud.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")
    monkeypatch.setenv("KDMESH_PLUGINS_DIR", str(tmp_path / "plugins"))
    hashes = []
    for backend in ("inline", "ray"):
        arguments = [
            "run",
            str(tmp_path / "mesh.yaml"),
            "--backend",
            backend,
            "--quiet",
            "--out",
            str(tmp_path / backend),
        ]
        assert main(arguments) == 0, capsys.readouterr().err
        (folder,) = (tmp_path / backend / "loud").iterdir()
        hashes.append((folder / "agents" / "s" / "model.safetensors").read_bytes())
    assert hashes[0] == hashes[1]
