"""Transformers models as agents: outputs, taps, packing, seeds."""

from __future__ import annotations

import pytest
import torch
from small_texts import LABELS, TEXTS, architecture, batch, bpe, encoded, model

from kdmesh.errors import MeshError
from kdmesh.hosts.taps import Taps
from kdmesh.signals.lazy import FactoredLogits, dense

LM = "language_modelling"
TAGS = "token_classification"
ENCODERS = ["bert", "roberta", "distilbert"]
DECODERS = ["llama", "gpt2", "qwen2"]


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_classifier_gives_what_plain_transformers_gives(kind):
    made = model(config=architecture(kind)).eval()
    x = batch()
    with torch.no_grad():
        logits = made(x)
        plain = made.net(input_ids=x.ids, attention_mask=x.mask.long()).logits
        alone = [made(batch([text])) for text in TEXTS[:3]]
    assert logits.shape == (3, 3) and torch.equal(logits, plain)
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-6, rtol=1e-5)  # other shapes, other rounding
    assert made.net.config.id2label == dict(enumerate(LABELS)) and made.rows("") == "samples"


def test_two_texts_are_told_apart_as_the_tokenizer_tells():
    tokenizer = bpe()
    made = model().eval()
    made.separator = tokenizer.sep_token_id
    x = batch(["the cat", "a dog ran"], pairs=["who is it", "sat"])
    told = tokenizer(["the cat", "a dog ran"], ["who is it", "sat"], padding=True, return_token_type_ids=True)
    assert x.ids.tolist() == told["input_ids"]
    with torch.no_grad():
        plain = made.net(**{name: torch.tensor(value) for name, value in told.items()}).logits
        assert torch.equal(made(x), plain)
        made.separator = None
        assert not torch.equal(made(x), plain)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_tags_are_given_for_units(kind):
    made = model(TAGS, config=architecture(kind)).eval()
    x = batch(task=TAGS)
    with torch.no_grad():
        logits = made(x)
        plain = made.net(input_ids=x.ids, attention_mask=x.mask.long()).logits
    assert logits.shape == (6, 3)
    assert torch.equal(logits, torch.stack([plain[row, column] for row in range(3) for column in _units(x, row)]))


def _units(x, row):
    return [at % x.ids.shape[1] for at in x.units.tolist() if at // x.ids.shape[1] == row]


@pytest.mark.parametrize("kind", DECODERS)
def test_hidden_rows_times_the_head_are_the_logits(kind):
    made = model(LM, config=architecture(kind)).eval()
    x = batch(task=LM)
    with torch.no_grad():
        value = made(x)
        plain = made.net(input_ids=x.ids, attention_mask=x.mask.long()).logits.flatten(0, 1)[x.units]
    assert isinstance(value, FactoredLogits) and value.weight is made.net.get_output_embeddings().weight
    torch.testing.assert_close(dense(value), plain, atol=1e-6, rtol=1e-5)  # a product of other rows
    assert made.rows("") == "units"
    assert made.rows("hidden.0") == "tokens" and made.rows("pooled.0") == "samples"


@pytest.mark.parametrize("kind", ["gemma2", "cohere"])
def test_logits_that_are_capped_or_scaled_after_the_head_are_given_whole(kind):
    made = model(LM, config=architecture(kind), attention="eager").eval()
    x = batch(task=LM)
    with torch.no_grad():
        value = made(x)
        plain = made.net(input_ids=x.ids).logits.flatten(0, 1)[x.units]
    assert isinstance(value, torch.Tensor) and torch.equal(value, plain)


@pytest.mark.parametrize("kind", DECODERS)
def test_gradients_through_hidden_rows_are_those_of_the_plain_model(kind):
    made, x = model(LM, config=architecture(kind)).eval(), batch(task=LM)
    torch.nn.functional.cross_entropy(dense(made(x)), x.targets).backward()
    own = {name: p.grad.clone() for name, p in made.named_parameters()}
    made.zero_grad()
    logits = made.net(input_ids=x.ids, attention_mask=x.mask.long()).logits.flatten(0, 1)[x.units]
    torch.nn.functional.cross_entropy(logits, x.targets).backward()
    for name, p in made.named_parameters():
        torch.testing.assert_close(own[name], p.grad, atol=1e-6, rtol=1e-4)  # sums in another order


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DECODERS)
def test_packed_samples_are_as_if_alone(kind, attention):
    made = model(LM, config=architecture(kind), attention=attention).eval()
    texts = TEXTS[:4]
    samples = encoded(texts, LM, pack=40)
    packed = samples.batch(torch.arange(4))
    assert packed.ids.shape[0] < 4
    with torch.no_grad():
        together = dense(made(packed))
        alone = torch.cat([dense(made(batch([text], LM))) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-4)  # other shapes, other rounding


def test_packing_is_refused_where_samples_would_see_each_other():
    made = model(LM, config=architecture("bloom"), attention="eager")
    packed = encoded(TEXTS[:3], LM, pack=40).batch(torch.arange(3))
    with pytest.raises(MeshError, match="bloom does not keep samples apart") as error:
        made(packed)
    assert error.value.where == "text.pack" and made.training
    with pytest.raises(MeshError, match="packed samples are for language modelling"):
        model()(packed)


def test_a_language_model_that_sees_what_it_predicts_is_refused():
    with pytest.raises(MeshError, match="bert sees the tokens that it is to predict"):
        model(LM, config=architecture("bert"))
    made = model(LM, config=architecture("bert", is_decoder=True))
    assert isinstance(made(batch(task=LM)), FactoredLogits)


@pytest.mark.parametrize(("kind", "task"), [("bert", "classification"), ("llama", LM), ("roberta", TAGS)])
def test_one_seed_gives_one_model_and_one_dropout(kind, task):
    dropout = {"attention_dropout": 0.2} if kind == "llama" else {}
    one, two, other = (model(task, seed, config=architecture(kind, **dropout)) for seed in (1, 1, 2))
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
    x = batch(task=task)
    seen = []
    for made, seed in ((one, 3), (two, 3), (one, 4)):
        torch.manual_seed(seed)
        seen.append(dense(made.train()(x)))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(("kind", "task"), [("bert", "classification"), ("distilbert", TAGS), ("gpt2", LM)])
def test_hidden_states_are_tapped_without_padding(kind, task):
    made, x = model(task, config=architecture(kind)).eval(), batch(task=task)
    layers = {"hidden.0": "hidden.0", "hidden.2": "hidden.2", "pooled.1": "pooled.1"}
    with torch.no_grad(), Taps(made, layers, "agents.a") as values:
        made(x)
    with torch.no_grad():
        states = made.net(input_ids=x.ids, attention_mask=x.mask.long(), output_hidden_states=True).hidden_states
    for number in (0, 2):
        torch.testing.assert_close(values[f"hidden.{number}"], states[number][x.mask], atol=1e-6, rtol=1e-5)
    assert torch.allclose(values["pooled.1"], states[1][:, 0], atol=1e-6) and len(values) == 3
    assert made.rows("hidden.0") == "tokens" and made.rows("pooled.1") == "samples"


@pytest.mark.parametrize(("kind", "task"), [("bert", "classification"), ("llama", LM)])
def test_attention_maps_are_each_tokens_over_its_sample(kind, task):
    made, x = model(task, config=architecture(kind), attention="eager", max_length=32).eval(), batch(task=task)
    with torch.no_grad(), Taps(made, {"map": "attention.1"}, "agents.a") as values:
        made(x)
        maps = made.net(input_ids=x.ids, attention_mask=x.mask.long(), output_attentions=True).attentions[1].mean(1)
    value = values["map"]
    assert value.shape == (len(x.tokens), 32)
    torch.testing.assert_close(value.sum(1), torch.ones(len(value)))
    length = x.ids.shape[1]
    torch.testing.assert_close(value[:, :length], maps[x.mask] * x.mask.repeat_interleave(x.lengths, 0))
    assert not value[:, length:].any()


def test_attention_maps_of_packed_samples_are_those_of_samples_alone():
    made = model(LM, config=architecture("qwen2"), attention="eager", max_length=32).eval()
    packed = encoded(TEXTS[:3], LM, pack=40).batch(torch.arange(3))
    found = []
    for x in (packed, *(batch([text], LM) for text in TEXTS[:3])):
        with torch.no_grad(), Taps(made, {"map": "attention.0"}, "agents.a") as values:
            made(x)
        found.append(values["map"])
    torch.testing.assert_close(found[0], torch.cat(found[1:]), atol=1e-6, rtol=1e-5)  # other shapes, other rounding


@pytest.mark.parametrize(
    ("settings", "what"), [({}, "no maps are computed"), ({"attention": "eager"}, "how wide are the maps")]
)
def test_maps_that_cannot_be_given_are_refused(settings, what):
    made = model(**settings)
    with pytest.raises(MeshError, match=what), Taps(made, {"map": "attention.0"}, "agents.a"):
        made(batch())


def test_layers_inside_the_network_are_not_tapped():
    with pytest.raises(MeshError, match=r"no layer 'net.bert.encoder' to tap"):
        model().rows("net.bert.encoder")


@pytest.mark.parametrize("task", ["classification", TAGS, LM])
def test_on_meta_it_gives_shapes_alone(task):
    kind = "llama" if task == LM else "bert"
    x = batch(task=task)
    x = x.to(torch.device("meta"))
    with torch.device("meta"):
        made = model(task, config=architecture(kind), max_length=20, attention="eager")
        layers = {name: name for name in ("hidden.0", "pooled.2", "attention.1")}
        with Taps(made, layers, "agents.a") as values:
            value = made(x)
    rows = {"classification": 3, TAGS: 6, LM: len(x.units)}[task]
    assert tuple(value.shape) == (rows, 300 if task == LM else 3)
    assert {name: tuple(v.shape) for name, v in values.items()} == {
        "hidden.0": (len(x.tokens), 16),
        "pooled.2": (3, 16),
        "attention.1": (len(x.tokens), 20),
    }
    assert all(p.is_meta for p in made.parameters())


@pytest.mark.parametrize("adapter", [{"lora": {"rank": 2}}, {"prefix": {"length": 3}}])
def test_on_meta_an_adapter_has_its_parameters(adapter):
    sizes = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            made = model(LM, config=architecture("llama"), **adapter)
        sizes.append([(name, p.shape, p.requires_grad) for name, p in made.named_parameters()])
    assert sizes[0] == sizes[1] and made(batch(task=LM).to(torch.device("meta"))).shape[1] == 300


def test_checkpointing_recomputes_to_the_same_gradients():
    x, found = batch(), []
    for again in (False, True):
        made = model(gradient_checkpointing=again)
        torch.manual_seed(5)
        made.train()(x).logsumexp(1).sum().backward()
        found.append([p.grad for p in made.parameters()])
    assert any(getattr(part, "gradient_checkpointing", False) for part in made.modules())
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True) if a is not None)


def test_bf16_gives_rows_of_one_type():
    made, x = model(LM, config=architecture("llama")), batch(task=LM)
    with torch.autocast("cpu", torch.bfloat16):
        value = made(x)
    assert value.hidden.dtype == value.weight.dtype == torch.float32
    half = model(LM, config=architecture("gpt2"), dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} and half(x).hidden.dtype == torch.bfloat16
