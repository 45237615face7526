"""Every built-in passes the contract of its kind; what each declares stands here, and nothing is left out."""

from __future__ import annotations

import gzip
import json
import sqlite3
import struct
from types import FunctionType

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from recognised import RECOGNISED

from kdmesh import testing
from kdmesh.plugins import KINDS, registry
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.testing import small

EQUAL = {"zero_at_equality": True, "permutation_invariant": True}
ANY_ORDER = {"order_invariant": True}
CONTRACTS = {
    "strategies": testing.StrategyContract,
    "objectives": testing.ObjectiveContract,
    "consensus": testing.ConsensusContract,
    "models": testing.ModelContract,
    "datasets": testing.DatasetContract,
    "signals": testing.SignalContract,
    "views": testing.ViewContract,
    "tasks": testing.TaskContract,
    "metrics": testing.MetricContract,
    "samplers": testing.SamplerContract,
    "gates": testing.GateContract,
    "filters": testing.FilterContract,
    "text_rules": testing.TextRuleContract,
    "prunings": testing.PruningContract,
    "recognisers": testing.RecogniserContract,
}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "type_vocab_size": 1,
    "max_position_embeddings": 8,
}
DECLARED = {
    ("metrics", "accuracy"): {"best": 1.0},
    ("metrics", "r2"): {"best": 1.0},
    ("metrics", "mse"): {"best": 0.0},
    ("metrics", "mae"): {"best": 0.0},
    ("metrics", "ndcg"): {"best": 1.0},
    ("metrics", "mrr"): {"best": 1.0},
    ("metrics", "recall_at_k"): {"best": 1.0, "config": {"k": 4}},
    ("metrics", "loss"): {"best": 0.0},
    ("metrics", "ece"): {"best": 0.0},
    ("metrics", "balanced_accuracy"): {"best": 1.0},
    ("metrics", "macro_f1"): {"best": 1.0},
    ("metrics", "auroc"): {"best": 1.0},
    ("metrics", "micro_f1"): {"best": 1.0},
    ("metrics", "mean_average_precision"): {"best": 1.0},
    ("metrics", "bits_per_character"): {"best": 0.0},
    ("metrics", "pattern"): {"config": {"match": "[0-9]"}},
    ("models", "hf"): {"config": {"config": BERT, "tokenizer": {"characters": {}}, "max_length": 8}},
    ("strategies", "chain"): {"config": {"agents": ["a", "b", "c"], "dense": True}},
    ("strategies", "debate"): {
        "config": {
            "debaters": ["a", "b"],
            "student": "c",
            "template": "{{ others }}={{ prompt }}",
            "sampling": {"max_new_tokens": 3},
        }
    },
    ("strategies", "star"): {
        "config": {"student": "c", "hint": "{{ text }}{{ prompt }}", "least": 0, "sampling": {"max_new_tokens": 3}}
    },
    ("strategies", "ensemble"): {"config": {"teachers": ["a", "b"], "student": "c"}},
    ("strategies", "mutual"): {"config": {"peers": ["a", "b", "c"]}},
    ("strategies", "rounds"): {"config": {"teachers": "a", "students": ["b", "c"], "rounds": 2}},
    ("strategies", "self"): {"config": {"student": "a"}},
    ("objectives", "ce"): {"config": {"label_smoothing": 0.1, "temperature": 2}, "permutation_invariant": True},
    ("objectives", "kl"): {"config": {"temperature": 3}, **EQUAL},
    ("objectives", "reverse_kl"): {"config": {"temperature": 2, "t2_scale": False}, **EQUAL},
    ("objectives", "jsd"): {"config": {"beta": 0.3}, **EQUAL},
    ("objectives", "mse"): EQUAL,
    ("objectives", "bce"): {"permutation_invariant": True},
    ("objectives", "binary_kl"): {"config": {"temperature": 3}, **EQUAL},
    ("objectives", "mae"): {"config": {"per_element": True}, **EQUAL},
    ("objectives", "hint"): {"permutation_invariant": True, "target_shape": (6, 2, 2)},
    ("objectives", "prototype"): {"doubling": 1.0, **EQUAL},
    ("objectives", "attention"): EQUAL,
    ("objectives", "attention_mse"): {"shape": (5,), **EQUAL},
    ("objectives", "attention_kl"): {"shape": (5,), "permutation_invariant": True},
    ("objectives", "info_nce"): {"config": {"temperature": 2}, "permutation_invariant": True},
    ("objectives", "margin_mse"): EQUAL,
    ("objectives", "in_batch"): {"config": {"temperature": 2}, "doubling": None, "target_shape": (4, 7), **EQUAL},
    ("objectives", "uld"): {"config": {"temperature": 2}, **EQUAL},
    ("objectives", "span"): {"config": {"temperature": 2}, **EQUAL},
    ("consensus", "weighted"): {"config": {"weights": [1, 2, 3]}, "sources": (3,)},
    ("consensus", "staleness"): {"config": {"exponent": 0.5}},
    ("consensus", "threshold_vote"): {"config": {"votes": 2}, **ANY_ORDER},
    ("consensus", "expguard"): {"sources": (5,), **ANY_ORDER},
    ("consensus", "gnmax"): {"config": {"sigma": 2}, **ANY_ORDER},
    ("consensus", "confident_gnmax"): {"config": {"threshold": 2, "sigma1": 1, "sigma2": 2}, **ANY_ORDER},
    ("consensus", "gaussian_probabilities"): {"config": {"sigma": 0.5}, **ANY_ORDER},
    ("consensus", "route"): {"config": {"column": "domain", "to": {"x": "c"}, "else": "b"}, "sources": (3,)},
    ("metrics", "perplexity"): {"best": 1.0, "tolerance": 1e-6},
    ("metrics", "verifier"): {"config": {"path": "test_builtins:shorter", "settings": {"than": 12}}},
    ("metrics", "repetition"): {"config": {"n": 2}},
    ("filters", "agreement"): {"config": {"pattern": "[0-9a-z]", "share": 0.3}},
    ("filters", "answer"): {"config": {"pattern": "#### (.*)", "column": "answer"}, "keeps": False},
    ("filters", "confirmed"): {"config": {"votes": 1}},
    ("filters", "dedup"): {"config": {"by": "near"}},
    ("filters", "length"): {"config": {"min": 2, "max": 9}},
    ("filters", "pattern"): {"config": {"without": "[aeiou]"}},
    ("filters", "perplexity"): {"config": {"max": 20.0}},
    ("filters", "personal"): {"config": {"find": [{"words": {"words": ["do", "1"]}}]}},
    ("text_rules", "vote"): {"config": {"ties": "first", "share": 0.5}},
    ("text_rules", "best_of"): {"config": {"metric": {"numeric_answer": {}}}},
    ("prunings", "layers"): {"config": {"drop": 1, "by": "alternate"}},
    ("prunings", "heads"): {"config": {"drop": 1}},
    ("prunings", "neurons"): {"config": {"share": 0.5}},
    ("prunings", "width"): {"config": {"share": 0.25}},
    ("prunings", "magnitude"): {"config": {"share": 0.3, "over": "model"}},
    **{("recognisers", name): told for name, told in RECOGNISED.items()},
    ("samplers", "grid"): {"ranges": False},
    ("signals", "top_k"): {"config": {"k": 2}},
    ("signals", "sampled"): {"config": {"draws": 4, "k": 1}},
    ("signals", "reader_top_k"): {"config": {"k": 2}},
    ("models", "mlp"): {"shapes": ((1, 8, 8), (12,)), "config": {"hidden": [16, 8], "dropout": 0.2}},
    ("models", "cross_encoder"): {"shapes": ((6, 1, 8, 8), (6, 12)), "config": {"hidden": [16], "dropout": 0.2}},
    ("models", "bi_encoder"): {"shapes": ((6, 1, 8, 8), (6, 12)), "config": {"similarity": "cosine", "scale": 10}},
    ("models", "vit"): {"shapes": ((1, 8, 8), (3, 8, 4)), "config": {"dim": 16, "heads": 2}},
    ("models", "cnn"): {"shapes": ((1, 8, 8), (3, 7, 10)), "config": {"width": 8}},
    ("models", "resnet"): {"shapes": ((1, 8, 8), (3, 7, 10)), "config": {"width": 4}},
}
FALLBACK = {"consensus": ANY_ORDER}
ON_RAY = {
    "strategies": ("rounds", "star"),
    "objectives": ("hint", "in_batch", "kl", "span"),
    "consensus": ("concat", "expguard", "inverse_variance", "route", "running_average"),
    "models": ("bi_encoder", "hf", "resnet"),
    "datasets": ("csv", "images", "lists", "sums"),
    "signals": ("hidden", "reader_top_k", "sampled"),
    "views": ("cutmix", "noise"),
    "tasks": ("multi_label", "token_classification"),
    "metrics": ("confusion_matrix", "pair_margin", "perplexity", "verifier"),
    "samplers": ("random",),
    "gates": ("gap",),
    "filters": ("best", "confirmed", "dedup"),
    "text_rules": ("best_of",),
    "prunings": ("width",),
    "recognisers": ("words",),
}
"""Of each kind those that differ in what hosts are sent, keep or draw. The others' meshes are run there by `make slow`,
and every bundled topology is in tests/ray/test_ray_bits.py."""


def idx(folder):
    for part, size in (("train", 6), ("t10k", 3)):
        for stem, array in (("images-idx3", np.arange(size * 6).reshape(size, 3, 2)), ("labels-idx1", np.arange(size))):
            data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            packed = gzip.compress(data + array.astype(np.uint8).tobytes())
            (folder / f"{part}-{stem}-ubyte.gz").write_bytes(packed)
    return {"folder": str(folder)}


def arrays(folder):
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    np.savez(folder / "some.npz", x=x, y=y, x_test=x[:2], y_test=y[:2])
    return {"path": str(folder / "some.npz")}


def images(folder):
    from PIL import Image

    for name in ("train/cat", "train/dog", "test/cat", "transfer"):
        (folder / "all" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 20 * number + len(name), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "all" / name / f"{number}.png")
    return {"path": str(folder / "all"), "resize": [6, 5], "mode": "grey"}


def csv(folder):
    (folder / "some.csv").write_text("a,b,city,label\n1,2,Bern,x\n3,4,Rome,y\n")
    (folder / "more.csv").write_text("a,b,city,label\n5,6,Oslo,x\n")
    return {"path": str(folder / "some.csv"), "test_path": str(folder / "more.csv")}


def parquet(folder):
    table = pyarrow.table({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [2, 1, 0, 1, 2], "label": ["x", "y", "x", "y", None]})
    pyarrow.parquet.write_table(table, folder / "some.parquet")
    return {"path": str(folder / "some.parquet")}


def sql(folder):
    base = sqlite3.connect(folder / "some.db")
    base.executescript(
        "create table t (a, label); insert into t values (1, 'x'), (2, 'y'), (3, 'x'), (4, 'y'), (5, null);"
    )
    base.close()
    return {"path": str(folder / "some.db"), "query": "select * from t", "test_query": "select * from t where a = 1"}


def jsonl(folder):
    rows = [{"a": number, "label": number % 2} for number in range(5)]
    (folder / "some.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"path": str(folder / "some.jsonl")}


def text(folder):
    (folder / "some.csv").write_text("text,kind,city\nWhat is it ?,x,Bern\nWho is it ?,y,Rome\n")
    (folder / "more.csv").write_text("text,kind,city\nIs it ?,x,Oslo\n")
    return {"path": str(folder / "some.csv"), "label": "kind", "test_path": str(folder / "more.csv")}


def text_file(folder):
    (folder / "some.txt").write_text("What is it ? It is a mesh.\n" * 20)
    return {"path": str(folder / "some.txt"), "characters": 40}


def lists(folder):
    rows = [
        {"query": "What is it ?", "positives": ["It is a mesh."], "negatives": ["Who ?", "Rome"], "city": "Bern"},
        {"query": "Who ?", "positives": ["Anyone"], "negatives": ["a mesh"], "city": "Rome"},
    ]
    (folder / "some.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"path": str(folder / "some.jsonl"), "test_path": str(folder / "some.jsonl"), "ngrams": 2}


def written(folder):
    rows = [
        {"prompt": f"{at}+1=", "text": str(at + 1), "kept": at != 2, "dropped": None, "tokens": 1, "sample": at,
         "draw": 0, "producer": "t", "step": 0, "updates": 3}
        for at in range(6)
    ]  # fmt: skip
    (folder / "some.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "more.jsonl").write_text(json.dumps({"prompt": "9+1=", "text": "10"}) + "\n")
    return {"path": str(folder / "some.jsonl"), "test_path": str(folder / "more.jsonl")}


FILES = {
    "written": written,
    "idx": idx,
    "arrays": arrays,
    "csv": csv,
    "images": images,
    "jsonl": jsonl,
    "parquet": parquet,
    "sql": sql,
    "lists": lists,
    "text": text,
    "text_file": text_file,
}


RANKERS = ("bi_encoder", "cross_encoder")
SPEAKERS = ("debate", "star")


def speaking(self, offer, settings):
    """Agents that write, for strategies between such."""
    fields = small.mesh(("a", "b", "c", "bystander"), small.model(head="causal"), small.task(head="causal"),
                        connect=[{offer.name: settings}])  # fmt: skip
    pairs = [(a, b) for a in range(7) for b in range(7)]
    samples = [Sample(text=str(a + b), prompt=f"{a}+{b}=", at=f"sum {at}") for at, (a, b) in enumerate(pairs)]
    fields["data"] = {"dataset": "python:given", "test": 7, "validation": 0}
    return fields, Table(Texts(samples), None, classes=0)


def ranked(self, offer, settings):
    """Two agents that rank, for models that read lists."""
    connect = [{"ensemble": {"teachers": "a", "student": "b"}}]
    return small.mesh(("a", "b"), {offer.name: settings}, "ranking", connect=connect), small.table("relevance", (12,))


def shorter(text, than) -> bool:
    """What a verifier is."""
    return len(text.text) < than


def seldom(check):
    """A check of a contract as one that `make slow` runs."""
    own = FunctionType(check.__code__, check.__globals__, check.__name__, check.__defaults__, check.__closure__)
    own.__annotations__, own.__doc__ = check.__annotations__, check.__doc__
    return pytest.mark.slow(own)


def contract(kind, offer, declared=None, name=""):
    """A test class for one offer, as a plugin's author would write it."""
    declared = declared or DECLARED.get((kind, offer.name), FALLBACK.get(kind, {}))
    body = {"offer": pytest.fixture(lambda self: offer), **declared}
    if offer.name in RANKERS:
        body["small_mesh"] = ranked
    if kind == "strategies" and offer.name in SPEAKERS:
        body["small_mesh"] = speaking
    if kind == "datasets" and offer.name in FILES:
        body["settings"] = pytest.fixture(lambda self, tmp_path: FILES[offer.name](tmp_path))
    base = testing.MixContract if getattr(offer, "mixes", False) else CONTRACTS[kind]
    if offer.name not in ON_RAY[kind]:
        body["test_ray_gives_the_same_bits"] = seldom(base.test_ray_gives_the_same_bits)
    return type(f"Test_{kind}_{name or offer.name}", (base,), body)  # by which it is found elsewhere


for kind in CONTRACTS:
    for offer in registry().offers(kind):
        if getattr(offer, "lookup", ""):
            continue  # it computes nothing, and has no weights: tests/store_runs/test_stored_model.py
        if (kind, offer.name) == ("datasets", "torchvision"):
            continue  # its library and its files are elsewhere: tests/builtin/test_images_of_libraries.py
        if getattr(offer, "served", False):
            continue  # it is elsewhere: tests/endpoints
        if getattr(offer, "fixed", False):
            continue  # it is what a file says, and never learns: tests/engine/test_file_models.py
        if (kind, offer.name) == ("views", "torchvision"):
            continue  # it needs that library: tests/builtin/test_torchvision_views.py
        if kind == "models" and offer.name in ("torchvision", "timm"):
            continue  # these need their libraries: tests/builtin/test_library_models.py
        if offer.factory.startswith("kdmesh."):  # a plugin's own tests look after the rest
            globals()[f"Test_{kind}_{offer.name}"] = contract(kind, offer)


Test_text_rules_best_of_by_judges = contract(
    "text_rules",
    registry().find("text_rules", "best_of"),
    {
        "config": {"verdict": "[123]", "names": {"shown": ["1", "2", "3"], "turned": ["3", "2", "1"]}, "least": 1},
        "reads": ("shown", "turned"),
        "test_ray_gives_the_same_bits": seldom(testing.TextRuleContract.test_ray_gives_the_same_bits),
    },
    "best_of_by_judges",
)


def test_what_is_declared_is_offered():
    assert all(name in registry().names(kind) for kind, name in DECLARED)
    assert set(CONTRACTS) == set(KINDS) - {"commands"}  # a command has nothing to keep
    assert set(FILES) < set(registry().names("datasets"))
    assert set(ON_RAY) == set(CONTRACTS)
    assert all(f"Test_{kind}_{name}" in globals() for kind, names in ON_RAY.items() for name in names)
