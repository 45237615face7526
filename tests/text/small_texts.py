"""Small models and tokenizers for the tests of transformers models: made here, nothing is fetched."""

from __future__ import annotations

import functools

import torch

from kdmesh.builtin.models.offers import MODELS
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.text import tokenizers
from kdmesh.text.settings import HfConfig, TokenizerConfig

HF = next(offer for offer in MODELS if offer.name == "hf")
TEXTS = ["the cat sat on the mat", "a dog ran\nafter the cat", "who is it that sat on a dog?", "Zwölf Boxkämpfer …"] * 3
LABELS = ["animal", "number", "person"]
WIDTH = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SHAPES = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "distilbert": {"dim": 16, "n_heads": 2, "hidden_dim": 24},
    "gpt2": {"n_embd": 16, "n_head": 2},
    "llama": {**WIDTH, "num_key_value_heads": 1},
    "qwen2": {**WIDTH, "num_key_value_heads": 1},
    "gemma2": {**WIDTH, "num_key_value_heads": 1, "head_dim": 8},
    "cohere": {**WIDTH, "num_key_value_heads": 1},
    "bloom": {"hidden_size": 16, "n_head": 2},
}
DEPTH = {"distilbert": "n_layers", "gpt2": "n_layer", "bloom": "n_layer"}
LENGTH = {"gpt2": "n_positions"}


@functools.cache
def bpe():
    return tokenizers.load(TokenizerConfig(bpe={"vocabulary": 300}), lambda: TEXTS)


def architecture(kind, layers=2, **more):
    positions = {} if kind == "bloom" else {LENGTH.get(kind, "max_position_embeddings"): 64}
    return {"model_type": kind, DEPTH.get(kind, "num_hidden_layers"): layers, **positions, **SHAPES[kind], **more}


def model(task="classification", seed=0, tokenizer=None, labels=LABELS, **config):
    """As an agent's model is built: the settings checked, the generator seeded."""
    tokenizer = tokenizer or bpe()
    if "path" not in config:
        config = {"config": architecture("bert"), "tokenizer": {"bpe": {"vocabulary": 300}}, **config}
    elif isinstance(config["path"], str) is False:
        config["path"] = str(config["path"])
    language = task == "language_modelling"
    torch.manual_seed(seed)
    return HF.make(
        config,
        task=task,
        classes=0 if language else len(labels),
        labels=None if language else labels,
        vocabulary=len(tokenizer),
        pad=tokenizer.pad_token_id,
        separator=tokenizers.separator(tokenizer),
    )


def encoded(texts, task="classification", pad=0, pack=None, pairs=None):
    """Texts as rows of tokens: every token a unit in language modelling, each first one for tags."""
    rows = []
    for number, text in enumerate(texts):
        if task == "language_modelling":
            ids = bpe()(text, add_special_tokens=False)["input_ids"]
            ids = [bpe().bos_token_id, *ids]
            units = list(range(len(ids) - 1))
            rows.append(Row(ids, units, ids[1:], [(0, 0)] * len(units)))
        else:
            ids = bpe()(text, pairs[number] if pairs else None)["input_ids"]
            units = [1, len(ids) - 2] if task == "token_classification" else []
            rows.append(Row(ids, units, [0] * len(units), [(0, 0)] * len(units)))
    return Encoded.of(rows, pad, pack=pack)


def batch(texts=TEXTS[:3], task="classification", **how):
    samples = encoded(texts, task, **how)
    return samples.batch(torch.arange(len(samples)))


def save(folder, task="classification", labels=LABELS, tokenizer=None, **config):
    """A folder of plain transformers, and the model that it was made of."""
    net = model(task, labels=labels, tokenizer=tokenizer, **config).net
    net.save_pretrained(folder)
    (tokenizer or bpe()).save_pretrained(folder)
    return net


__all__ = ["DEPTH", "HF", "LABELS", "TEXTS", "HfConfig", "architecture", "batch", "bpe", "encoded", "model", "save"]
