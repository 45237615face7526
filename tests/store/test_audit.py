"""What an audit says of sparse answers, against sums that are written out; and its command."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_entries import HERE, digests
from test_store_command import run

from kdmesh.cli import store_audit
from kdmesh.signals.lazy import FactoredLogits
from kdmesh.signals.sampled import SampledProbs
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import EntryKey, Store, forms
from kdmesh.store.audit import Figures, audits, measure, stand_ins, ways
from kdmesh.store.signals import write_signal, write_texts

TEACHER = {"weights": "a" * 64}


def logits(rows, columns, seed=0, scale=3.0):
    return scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def key(made=None, form=None, producer=TEACHER):
    signal = {"output": "", **({"made": made} if made else {}), **({"form": form} if form else {})}
    return EntryKey(producer, signal)


def test_figures_are_those_of_the_definition():
    teacher, student = logits(40, 30), logits(40, 30, 1)
    value = TopKLogits.top(teacher, 4, "bucket")
    found = measure(teacher, ways(value), {"s": lambda start, stop: student[start:stop]})
    p, q = teacher.double().softmax(1), student.double().softmax(1)
    dense = (p * (p / q).log()).sum(1)
    rows = torch.arange(40)[:, None]
    named = p.topk(4).indices
    a, b = p[rows, named], q[rows, named]
    rest = (1 - a.sum(1), 1 - b.sum(1))
    bucket = (a * (a / b).log()).sum(1) + rest[0] * (rest[0] / rest[1]).log()
    even = p.new_ones(40, 30) * (rest[0] / 26)[:, None]
    even[rows, named] = a
    spread = (even * (even / q).log()).sum(1)
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    renormalised = (a * (a / b).log()).sum(1)
    for way, losses in (("bucket", bucket), ("spread", spread), ("renormalise", renormalised)):
        told = found[way, "s"].record()
        assert told["loss"] == pytest.approx(float(dense.mean()), rel=1e-5)
        assert told["error"] == pytest.approx(float((losses - dense).mean() / dense.mean()), abs=1e-5)
        assert told["error_of_a_row"] == pytest.approx(float((losses - dense).abs().mean() / dense.mean()), abs=1e-5)
        std = float((losses - dense).std(unbiased=False)) / math.sqrt(40) / float(dense.mean())
        assert told["standard_error"] == pytest.approx(std, abs=1e-5)
    gradients = q - p, q - even
    cosine = float((gradients[0] * gradients[1]).sum() / gradients[0].norm() / gradients[1].norm())
    told = found["spread", "s"].record()
    assert told["cosine"] == pytest.approx(cosine, abs=1e-5)
    size = float(gradients[0].pow(2).sum(1).mean().sqrt())
    assert told["gradient_bias"] == pytest.approx(float((gradients[1] - gradients[0]).mean(0).norm()) / size, abs=1e-5)


def test_draws_have_no_bias_and_the_likeliest_have():
    teacher = logits(1500, 60, 2, 1.5)
    students = stand_ins(teacher)
    found = {}
    for value in (SampledProbs.draw(teacher, 4, 8), TopKLogits.top(teacher, 12)):
        found |= measure(teacher, ways(value), students)
    drawn = found["drawn", "half"].record()
    assert abs(drawn["error"]) < 3 * drawn["standard_error"] < 0.1 and drawn["error_of_a_row"] > 0.02
    for way in ("bucket", "renormalise", "spread"):
        told = found[way, "half"].record()
        assert abs(told["error"]) > 0.05 and abs(told["error"]) > 10 * told["standard_error"]
    parts = [measure(teacher[at], ways(SampledProbs.draw(teacher[at], 4, 8)),
                     {"half": lambda a, b, at=at: students["half"](at.start + a, at.start + b)})["drawn", "half"]
             for at in (slice(0, 700), slice(700, 1500))]  # fmt: skip
    assert Figures().plus(parts[0]).plus(parts[1]).record() == pytest.approx(drawn)


def test_what_is_kept_as_it_was_has_no_error():
    teacher = logits(20, 30).bfloat16().float()
    told = measure(teacher, ways(teacher.bfloat16()), stand_ins(teacher))["", "prior"].record()
    assert told["error"] == pytest.approx(0, abs=1e-6) and told["cosine"] == pytest.approx(1)


@pytest.fixture
def root(tmp_path):
    root, teacher = tmp_path / "store", logits(50, 200)
    store = Store.open(root)
    hidden = FactoredLogits(teacher, torch.eye(200))
    starts, rows = torch.tensor([0, 20, 20, 50]), digests("a", "b", "c")
    write_signal(store.entry(key()), rows, hidden, starts, HERE)
    named = {"agent": "wide", "mesh": "three"}
    for made, value, form in (
        ({"name": "top_k", "settings": {"k": 8}}, TopKLogits.top(teacher, 8), forms.PACKED),
        ({"name": "sampled", "settings": {"k": 2, "draws": 6}}, SampledProbs.draw(teacher, 2, 6), forms.EXACT),
    ):
        write_signal(
            store.entry(key(made, form if form != "exact" else None), named), rows, value, starts, HERE, form=form
        )
    write_signal(store.entry(key(form="int8")), rows, teacher, starts, HERE, form=forms.INT8)
    alone = key({"name": "top_k", "settings": {"k": 3}}, producer={"weights": "b" * 64})
    write_signal(store.entry(alone), rows, TopKLogits.top(teacher, 3), starts, HERE)
    write_texts(store.entry(EntryKey(TEACHER, {"texts": "all"})), rows, ["x", "y", "z"], HERE)
    return root


def test_entries_are_measured_against_the_dense_answers_of_their_producer(root):
    store = Store.open(root)
    found = {(one.kind, one.form): one for one in audits(store, [*store.entries()])}
    assert {*found} == {("top_k", "packed"), ("sampled", "exact"), ("dense", "int8"), ("top_k", "exact")}
    packed, alone = found["top_k", "packed"], found["top_k", "exact"]
    assert packed.against == key().digest and packed.rows == 50 and alone.against is None and not alone.figures
    teacher = logits(50, 200)
    tail = 1 - teacher.softmax(1).topk(8).values.sum(1).mean()
    assert packed.tail == pytest.approx(float(tail), abs=1e-4)
    assert {way for way, _ in packed.figures} == {"spread", "bucket", "renormalise"}
    expected = measure(teacher, ways(TopKLogits.top(teacher, 8)), stand_ins(teacher))["bucket", "half"].record()
    assert packed.figures["bucket", "half"]["error"] == pytest.approx(expected["error"], abs=2e-3)
    assert abs(found["dense", "int8"].figures["", "half"]["error"]) < 0.01
    assert packed.bytes > 8 + 8 + 8  # codes, bits, least and tail


def test_the_command(root, capsys, monkeypatch):
    code, out, _ = run(capsys, "audit", "--store", root)
    words = " ".join(out.split())
    assert code == 0 and "three/wide: top_k, packed:" in words and "of the mass in tails" in words
    assert "50 rows measured against" in words and "not measured: no dense answers" in words and "renormalise" in out
    told = json.loads(run(capsys, "audit", "--store", root, "--json")[1])
    assert len(told) == 4
    (one,) = json.loads(run(capsys, "audit", told[0]["digest"][:10], "--store", root, "--json")[1])
    assert one == told[0]
    sparse = next(one for one in told if one["measured"])
    monkeypatch.setattr(store_audit, "SMALL", 1e9)
    words = " ".join(run(capsys, "audit", sparse["digest"][:10], "--store", root)[1].split())
    assert "these answers are almost the same for all samples" in words and "+" not in words.split("error,")[0]
    code, _, said = run(capsys, "audit", key().digest, "--store", root)
    assert code == 2 and "KEY: no entry here is sparse or rounded" in said
    assert run(capsys, "audit", "zz", "--store", root)[0] == 2
