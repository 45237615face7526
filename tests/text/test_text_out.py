"""Out: folders that plain transformers loads to identical logits; adapters; cards."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_texts import LABELS, TEXTS, architecture, batch, bpe, model, save
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from kdmesh.errors import MeshError
from kdmesh.signals.lazy import dense
from kdmesh.text.aligned import align
from kdmesh.text.card import card
from kdmesh.text.export import plain
from kdmesh.text.source import quiet

LM, TAGS = "language_modelling", "token_classification"
AUTO = {
    "classification": AutoModelForSequenceClassification,
    TAGS: AutoModelForTokenClassification,
    LM: AutoModelForCausalLM,
}
CASES = [("bert", "classification"), ("roberta", TAGS), ("llama", "classification"), ("gpt2", LM), ("qwen2", LM)]


def trained(task, **config):
    """A model some steps away from where it began."""
    made, x = model(task, **config).train(), batch(task=task)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 0.05)
    torch.manual_seed(3)
    for _ in range(2):
        optimizer.zero_grad()
        dense(made(x)).square().mean().backward()
        optimizer.step()
    return made.eval(), x


def read(folder, task):
    with quiet():
        net, info = AUTO[task].from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return net.eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(("kind", "task"), CASES)
def test_plain_transformers_gives_the_same_logits_bit_for_bit(kind, task, tmp_path):
    made, x = trained(task, config=architecture(kind))
    made.export(tmp_path, bpe())
    net, tokenizer = read(tmp_path, task)
    with torch.no_grad():
        for text in TEXTS[:2]:
            told = tokenizer(text, return_tensors="pt")
            assert ("token_type_ids" in told) == (kind in ("bert", "roberta"))
            inputs = {name: told[name] for name in ("input_ids", "attention_mask")}
            assert torch.equal(net(**told).logits, made.net(**inputs).logits)
        assert torch.equal(net(input_ids=x.ids, attention_mask=x.mask.long()).logits, _logits(made, x))
    if task != LM:
        assert net.config.id2label == dict(enumerate(LABELS))
    else:
        assert net.config.eos_token_id == net.generation_config.eos_token_id == bpe().eos_token_id
        told = tokenizer("the", return_tensors="pt")
        assert net.generate(**told, max_new_tokens=2, do_sample=False).shape[1] > told["input_ids"].shape[1]
    assert str(tmp_path) not in "".join(p.read_text() for p in tmp_path.glob("*.json"))


def test_files_are_aligned_and_hold_what_they_held(tmp_path):
    odd = {"b": torch.randn(3), "a": torch.randn(5, 7), "c": torch.randn(16, 2), "d": torch.zeros(0, 4)}
    state = {**odd, "half": torch.randn(3, 3).half(), "scalar": torch.tensor(2, dtype=torch.int64)}
    save_file(state, tmp_path / "x.safetensors", {"format": "pt"})
    align(tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    size = int.from_bytes((tmp_path / "x.safetensors").read_bytes()[:8], "little")
    assert (8 + size) % 64 == 0 and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    model().export(tmp_path / "agent", bpe())
    with quiet():
        net = AutoModelForSequenceClassification.from_pretrained(tmp_path / "agent")
    assert all(p.data_ptr() % 64 == 0 for p in net.parameters() if p.dim() > 1)


def _logits(made, x):
    return made.net(input_ids=x.ids, attention_mask=x.mask.long()).logits


def test_what_the_agent_answered_is_what_the_folder_answers(tmp_path):
    made, x = trained("classification")
    made.export(tmp_path, bpe())
    net, tokenizer = read(tmp_path, "classification")
    told = tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(net(**told).logits, made(x))


BY_OLD_NAMES = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft calls transformers
LORA = [("bert", "classification"), ("llama", LM), ("gpt2", LM), ("roberta", TAGS)]


@BY_OLD_NAMES
@pytest.mark.parametrize(("kind", "task"), LORA)
def test_low_rank_updates_train_alone_and_are_merged(kind, task, tmp_path):
    import peft

    save(tmp_path / "base", task, config=architecture(kind))
    made = model(task, path=tmp_path / "base", lora={"rank": 2})
    before = {name: p.clone() for name, p in made.named_parameters()}
    trainable = {name for name, p in made.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name or "modules_to_save" in name for name in trainable)
    assert (task == LM) == all("lora_" in name for name in trainable)
    x = batch(task=task)
    optimizer = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], 0.05)
    for _ in range(2):  # the first step moves only one of the two factors: the other is zero
        optimizer.zero_grad()
        dense(made.train()(x)).square().mean().backward()
        optimizer.step()
    moved = {name for name, p in made.named_parameters() if not torch.equal(p, before[name])}
    assert moved == trainable
    made.eval()
    made.export(tmp_path / "out", bpe())
    net, _ = read(tmp_path / "out", task)
    inputs = {"input_ids": x.ids, "attention_mask": x.mask.long()}
    with torch.no_grad():
        logits = net(**inputs).logits
        assert torch.equal(logits, plain(made).eval()(**inputs).logits)
        torch.testing.assert_close(logits, made.net(**inputs).logits, atol=1e-5, rtol=1e-4)  # (W + BA) x, W x + B A x
        with quiet():
            base = AUTO[task].from_pretrained(tmp_path / "base")
            beside = peft.PeftModel.from_pretrained(base, tmp_path / "out" / "adapter").eval()
        assert torch.equal(beside(**inputs).logits, made.net(**inputs).logits)
    told = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "base"


@BY_OLD_NAMES
@pytest.mark.parametrize(("kind", "task"), [("llama", LM), ("gpt2", LM), ("bert", "classification")])
def test_a_prefix_trains_alone_and_is_saved_beside(kind, task, tmp_path):
    import peft

    save(tmp_path / "base", task, config=architecture(kind))
    made = model(task, path=tmp_path / "base", prefix={"length": 3})
    trainable = {name for name, p in made.named_parameters() if p.requires_grad}
    assert trainable and all("prompt" in name or "classifier" in name for name in trainable)
    x = batch(task=task)
    value = dense(made.train()(x))
    value.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in made.parameters() if p.requires_grad)
    torch.optim.SGD([p for p in made.parameters() if p.requires_grad], 0.5).step()
    made.eval().export(tmp_path / "out", bpe())
    inputs = {"input_ids": x.ids, "attention_mask": x.mask.long()}
    net, _ = read(tmp_path / "out", task)
    with torch.no_grad():
        own = made.net(**inputs).logits
        assert not torch.equal(net(**inputs).logits, own)
        with quiet():
            whole = peft.PeftModel.from_pretrained(net, tmp_path / "out" / "adapter").eval()
        assert torch.equal(whole(**inputs).logits, own)
        flat = own if task == "classification" else own.flatten(0, 1)[x.units]
        torch.testing.assert_close(dense(made(x)), flat, atol=1e-6, rtol=1e-5)  # a product of other rows
    assert "PeftModel" in card("a", made, mesh="m", seed=0)


def test_packing_with_a_prefix_is_refused():
    made = model(LM, config=architecture("gpt2"), prefix={"length": 2})
    with pytest.raises(MeshError, match="gpt2 with a prefix does not keep"):
        made(batch(task=LM, pack=40))


@pytest.mark.parametrize("targets", [["nothing"], ["bert"]])
def test_targets_that_do_not_fit_are_refused(targets):
    with pytest.raises(MeshError, match="peft cannot adapt bert") as error:
        model(lora={"targets": targets})
    assert error.value.where == "model.hf.lora"


def test_the_card_says_where_it_comes_from_and_how_to_run_it():
    made = model()
    made.base, made.hub, made.licence = "some/encoder", True, "apache-2.0"
    text = card(
        "student",
        made,
        mesh="trec",
        seed=3,
        role="student",
        teachers={"big": "mit", "wide": None},
        data="trec",
        data_licence="unknown",
        metrics={"test": {"accuracy": 0.95}},
    )
    front = yaml.safe_load(text.split("---")[1])
    assert front == {
        "license": "apache-2.0",
        "base_model": "some/encoder",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["kdmesh", "distillation"],
    }
    assert "big (licence: mit), wide (licence: not stated)" in text and "- test: accuracy 0.9500" in text
    assert 'AutoModelForSequenceClassification.from_pretrained("student")' in text
    fresh = card("a", model(LM, config=architecture("gpt2"), lora={}), mesh="m", seed=0)
    assert yaml.safe_load(fresh.split("---")[1])["license"] == "unknown" and "random weights" in fresh
    assert "merged" in fresh and "base_model" not in fresh


@pytest.mark.parametrize("task", list(AUTO))
def test_the_cards_program_runs(task, tmp_path, monkeypatch, capsys):
    kind = "gpt2" if task == LM else "bert"
    made = model(task, config=architecture(kind))
    made.export(tmp_path / "agent", bpe())
    program = card("agent", made, mesh="m", seed=0).split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    with quiet():
        exec(program, {})
    assert capsys.readouterr().out.strip()
