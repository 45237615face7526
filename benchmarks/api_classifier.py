"""Distil a classifier behind an endpoint: SST-2 sentences labelled by a server, and what that is worth beside labels.

Run ``python benchmarks/api_classifier.py DATA [--write]``, or ``make api-classifier DATA=folder``. DATA holds
``sst2/train.csv.gz`` (6,920 sentences) and ``sst2/test.csv.gz`` (1,821), with the columns ``text`` and ``label`` (0 or
1): the binary Stanford Sentiment Treebank (Socher et al., 2013) with its usual split.

What was decided before the first run: the teacher is a BERT of 2 layers and width 128 that starts from nothing and
makes 324 updates on batches of 64 of the labels. It then stands behind the server of the tests (tests/endpoints), which
gives its label log-probabilities as the first token's, and is asked by kdmesh as any endpoint: of train without
labels, of validation and of test. Students are BERTs of 1 layer and width 32; they make 324 updates on batches of 64
too: `endpoint` of what the server says of train, `hard` of the labels of the same sentences, `few` of 500 of them.
Seeds are of the students' initial weights; split, teacher and batches are the same for all. Nothing is selected.
`--reuse` prints what runs that are whole have left in `--out`, and makes the others.
A miss is printed as MISS, and the exit code stays 0.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from texts import ROOT, Figures, Report, Threshold, options

sys.path.append(str(ROOT / "tests" / "endpoints"))

import torch
from server import Server

from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import parse
from kdmesh.statistics import paired

UPDATES, BATCH = 324, 64
WORDS = {"0": "negative", "1": "positive"}
CLAIMS = (  # points of test accuracy, written down before any of these runs
    Threshold("endpoint", "few", above=0),
    Threshold("endpoint", "hard", above=-1),
)


def bert(width: int, layers: int) -> dict[str, Any]:
    """An encoder that starts from nothing."""
    config = {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    return {"hf": {"config": config, "tokenizer": {"bpe": {"vocabulary": 4000}}}}


def mesh(data: Path, **more: Any) -> dict[str, Any]:
    """What all meshes share."""
    text = {"path": str(data / "train.csv.gz"), "test_path": str(data / "test.csv.gz"), "label": "label"}
    return {
        "task": "classification",
        "data": {"dataset": {"text": text}, "validation": 0.1},
        "text": {"max_length": 64},
        "train": {
            "steps": UPDATES,
            "batch_size": BATCH,
            "optimizer": {"adamw": {"lr": 1e-3}},
            "schedule": {"linear": {"warmup": 32}},
        },
        **more,
    }


def taught(data: Path, out: Path, reuse: bool) -> Path:
    """The folder of the teacher, trained."""
    fields = mesh(data, name="sst2-teacher", agents={"teacher": {"model": bert(128, 2)}})
    fields["flows"] = [{"from": "labels", "to": "teacher", "objective": "ce"}]
    return (latest(out, fields["name"], reuse) or once(fields, out)[1]) / "agents" / "teacher"


def once(fields: dict[str, Any], out: Path) -> tuple[dict[str, Any], Path]:
    """Run a mesh, with a store of these runs alone; its summary and its folder."""
    summary, folder, _ = run_once(Request(parse(fields), "inline", out=out, report=False, store=str(out / "store")))
    assert folder is not None
    return summary, folder.root


def latest(out: Path, name: str, reuse: bool) -> Path | None:
    """The folder of the last run of a mesh that is whole, where earlier ones are to be reused."""
    done = sorted((out / name).glob("*/summary.json")) if reuse else []
    return done[-1].parent if done else None


def port_of(run: Path | None) -> int:
    """Where the server of a run was, by which answers are found again; 0: at any port."""
    if run is None:
        return 0
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return urlsplit(manifest["mesh"]["agents"]["api"]["model"]["api"]["base_url"]).port or 0


@torch.no_grad()
def said(teacher: Path, data: Path) -> dict[str, list[float]]:
    """The teacher's log-probabilities of every sentence."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    net = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    texts = [row["text"] for part in ("train", "test") for row in rows(data / f"{part}.csv.gz")]
    texts.sort(key=len)
    found: dict[str, list[float]] = {}
    for start in range(0, len(texts), 256):
        part = texts[start : start + 256]
        given = tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")
        logits = net(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
        found |= dict(zip(part, logits.log_softmax(-1).tolist(), strict=True))
    return found


def rows(path: Path) -> list[dict[str, str]]:
    """A file's lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def students(data: Path, url: str, seeds: int) -> dict[str, Any]:
    """The endpoint, and the students of all seeds."""
    api = {"base_url": url, "model": "tiny", "words": WORDS, "top": 2, "prompt": "{{ text }}\n{{ labels }}?"}
    fields = mesh(data, name="sst2-students", streams={"few": {"of": "train", "size": 500}})
    fields["agents"] = {"api": {"model": {"api": api}, "update": "frozen"}}
    fields["flows"] = []
    for seed in range(seeds):
        for name, source, stream in (
            ("endpoint", "api", "train"),
            ("hard", "labels", "train"),
            ("few", "labels", "few"),
        ):
            fields["agents"][f"{name}-{seed}"] = {"model": bert(32, 1), "seed": seed}
            objective = {"kl": {"temperature": 1}} if source == "api" else "ce"
            to = {"to": f"{name}-{seed}", "stream": stream}
            fields["flows"].append({"from": source, **to, "objective": objective})
    return fields


def main() -> int:
    """Train, serve, ask, and print."""
    asked = options(__doc__, "sst2", 5)
    data, seeds = asked.data, asked.seeds
    report = Report("api-classifier")
    report(
        "Test accuracy in percent on 1,821 sentences; mean, 95% t interval and each seed; differences paired by seed."
    )
    report()
    out = asked.out / "api-classifier"
    known = said(taught(data, out, asked.reuse), data)

    def tops(prompt: str) -> dict[str, float]:
        values = known.get(prompt.partition("\n")[0], [math.log(0.5)] * 2)
        return dict(zip(WORDS.values(), values, strict=True))

    before = latest(out, "sst2-students", asked.reuse)
    server = Server(tops=tops, port=port_of(before))
    try:
        if before is None:
            before = once(students(data, server.url, seeds), out)[1]
        sent = len(server.bodies)
        once({**students(data, server.url, 1), "name": "sst2-again"}, out)
        again = len(server.bodies) - sent
    finally:
        server.close()
    summary = json.loads((before / "summary.json").read_text(encoding="utf-8"))
    accuracy = {name: 100 * facts["metrics"]["test"]["accuracy"] for name, facts in summary["agents"].items()}
    figures: Figures = {
        name: [accuracy[f"{name}-{seed}"] for seed in range(seeds)] for name in ("endpoint", "hard", "few")
    }
    spent = summary["endpoints"]["api"]
    report(f"        teacher behind the endpoint: {accuracy['api']:.1f}")
    gap = paired(figures["endpoint"], [accuracy["api"]] * seeds)
    half = "" if gap["half_width"] is None else f" ± {gap['half_width']:.1f}"
    report(f"        endpoint minus its teacher: {gap['mean']:+.1f}{half} (of the students' seeds alone)")
    report(f"        {spent['requests']:,} requests, {spent['tokens']:,} tokens (words)")
    report(f"        a second run, of one seed, sent {again}")
    report.figures(figures, CLAIMS, 1)
    report.close(asked.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
