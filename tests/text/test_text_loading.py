"""Weights and configurations that models start from: whole or refused, by name."""

from __future__ import annotations

import json
import re
import types

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from small_texts import LABELS, SHAPES, HfConfig, architecture, batch, bpe, model, save
from transformers import BertConfig, BertForMaskedLM, BertModel

from kdmesh.errors import MeshError
from kdmesh.text import source, tokenizers

LM, TAGS = "language_modelling", "token_classification"


def refused(what, where, task="classification", **settings):
    with pytest.raises(MeshError, match=what) as error:
        model(task, **settings)
    assert error.value.where == f"model.hf{where}" and error.value.instead
    return error.value


@pytest.mark.parametrize(("kind", "task"), [("bert", "classification"), ("roberta", TAGS), ("qwen2", LM)])
def test_a_folder_is_read_as_it_was_saved(kind, task, tmp_path):
    net = save(tmp_path, task, config=architecture(kind))
    made = model(task, seed=9, path=tmp_path)
    own = made.net.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in net.state_dict().items())
    assert made.training and made.base == tmp_path.name


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
@pytest.mark.parametrize("task", ["classification", TAGS])
def test_an_encoder_without_a_head_gets_a_new_one_from_the_seed(kind, task, tmp_path):
    torch.manual_seed(5)
    whole = BertConfig(**{**SHAPES["bert"], "num_hidden_layers": 2, "vocab_size": 300})
    kind(whole).save_pretrained(tmp_path)
    one, two, other = (model(task, seed, path=tmp_path).net for seed in (1, 1, 2))
    for name, value in one.named_parameters():
        assert torch.equal(value, two.get_parameter(name))
        new = name.startswith("classifier.w") or (kind is BertForMaskedLM and "pooler.dense.w" in name)
        assert torch.equal(value, other.get_parameter(name)) != new, name


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "classification"), ("distilbert", TAGS), ("llama", LM), ("gpt2", LM)]
)
def test_chosen_layers_of_another_model(kind, task, tmp_path):
    net = save(tmp_path, task, config=architecture(kind, layers=4))
    made = model(task, path=tmp_path, layers=[3, 1])
    assert made.net.config.num_hidden_layers == 2 and len(made.hidden) == 3
    told = net.state_dict()
    for name, value in made.net.state_dict().items():
        for old, new in ((".1.", ".#."), (".0.", ".3."), (".#.", ".1.")):
            name = name.replace(old, new, 1) if "layer" in name or ".h." in name else name
        assert torch.equal(value, told[name]), name
    assert len(made(batch(task=task)))
    whole = model(task, path=tmp_path, layers=[0, 1, 2, 3]).eval()
    x = batch(task=task)
    with torch.no_grad():
        inputs = {"input_ids": x.ids, "attention_mask": x.mask.long()}
        assert torch.equal(whole.net(**inputs).logits, net.eval()(**inputs).logits)


def test_layers_settings_follow_their_layers(tmp_path):
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    more = {"layer_types": kinds, "use_sliding_window": True, "sliding_window": 4}
    save(tmp_path, LM, config=architecture("qwen2", layers=3, **more))
    made = model(LM, path=tmp_path, layers=[0, 2])
    assert made.net.config.layer_types == ["full_attention", "sliding_attention"]


def test_layers_out_of_range_are_refused_before_weights_are_read(tmp_path):
    save(tmp_path)
    refused("there is no layer 2: the model has 2, counted from 0", ".layers", path=tmp_path, layers=[0, 2])
    with torch.device("meta"):
        refused("there is no layer 7", ".layers", path=tmp_path, layers=[7])


def test_on_meta_no_weights_are_read(tmp_path):
    save(tmp_path)
    with torch.device("meta"):
        made = model(path=tmp_path, layers=[1])
    assert made.shapes_only and made.net.config.num_hidden_layers == 1
    (tmp_path / "model.safetensors").write_bytes(b"")
    with torch.device("meta"), pytest.raises(MeshError, match="is damaged"):  # their names and shapes are
        model(path=tmp_path, layers=[1])


def test_outputs_are_put_into_the_order_of_the_datas_labels(tmp_path):
    net = save(tmp_path, labels=["person", "animal", "number"]).eval()
    made = model(path=tmp_path).eval()
    x = batch()
    with torch.no_grad():
        told = net(input_ids=x.ids, attention_mask=x.mask.long()).logits
        assert torch.equal(made(x), told[:, [1, 2, 0]])
    assert made.net.config.id2label == dict(enumerate(LABELS)) and made.net.config.label2id["person"] == 2


def test_labels_are_mapped_by_name(tmp_path):
    net = save(tmp_path, labels=["HUM", "animal", "NUM"]).eval()
    made = model(path=tmp_path, label_map={"HUM": "person", "NUM": "number"}).eval()
    x = batch()
    with torch.no_grad():
        told = net(input_ids=x.ids, attention_mask=x.mask.long()).logits
        assert torch.equal(made(x), told[:, [1, 2, 0]])
    error = refused("labels are HUM, animal, NUM; the data's are animal, number, person", ".label_map", path=tmp_path)
    assert "label_map" in error.instead
    refused("no label 'HMU'", ".label_map.HMU", path=tmp_path, label_map={"HMU": "person"})


def test_labels_without_names_are_taken_in_their_order(tmp_path):
    net = save(tmp_path, labels=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert torch.equal(model(path=tmp_path).net.classifier.weight, net.classifier.weight)
    error = refused(
        r"classifier.bias of shape \(3,\), where this model has \(2,\)", ".path", labels=["a", "b"], path=tmp_path
    )
    assert "as many outputs" in error.instead


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_outputs_of_any_kind_are_matched_by_name(tmp_path, task):
    net = save(tmp_path, task, labels=["HUM", "animal", "NUM"]).eval()
    made = model(task, path=tmp_path, label_map={"HUM": "person", "NUM": "number"}).eval()
    x = batch()
    with torch.no_grad():
        told = net(input_ids=x.ids, attention_mask=x.mask.long()).logits
        assert torch.equal(made(x), told[:, [1, 2, 0]])
    refused("labels are HUM, animal, NUM; the data's are animal, number", ".label_map", task, path=tmp_path)


def test_names_of_a_checkpoint_and_numbers_of_the_data_are_not_matched(tmp_path):
    save(tmp_path)
    error = refused("labels are animal, number, person; the data's are numbers", ".path", path=tmp_path, labels=[])
    assert "labels: [animal, number, person]" in error.instead


def test_a_model_says_what_its_outputs_are_and_is_not_taken_for_another(tmp_path):
    assert model().net.config.problem_type is None  # which transformers takes for one class of several
    for task, other in (("multi_label", "regression"), ("regression", "multi_label")):
        kind = {"multi_label": "multi_label_classification"}.get(task, task)
        net = save(tmp_path / task, task)
        assert net.config.problem_type == kind
        for wrong in (other, "classification"):
            error = refused(f"is one of {kind}, and task {wrong}", ".config.problem_type", wrong, path=tmp_path / task)
            settings = yaml.safe_load(re.search(r"\{problem_type: .*?\}", error.instead)[0])
            made = model(wrong, path=tmp_path / task, config=settings)
            assert made.net.config.problem_type == settings["problem_type"] != kind
            assert torch.equal(made.net.classifier.weight, net.classifier.weight)


# -- damage --


def test_a_folder_that_does_not_exist(tmp_path):
    refused("nowhere does not exist", ".path", path=tmp_path / "nowhere")
    refused("nowhere/at/all does not exist", ".path", path="nowhere/at/all")
    (tmp_path / "file").write_text("")
    refused("is a file, not a folder", ".path", path=tmp_path / "file")
    refused("has no config.json", ".path", path=tmp_path)


def test_a_hub_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("some/model is not a folder here, and could not be fetched from https://", ".path", path="some/model")
    with pytest.raises(MeshError, match="could not be fetched from https://") as error:
        tokenizers.read("some/model")
    assert error.value.where == "model.hf.tokenizer"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of the one commit of some/model that was fetched before, whole and small."""
    from huggingface_hub import constants

    home = tmp_path / "models--some--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    save(home / "snapshots" / "abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source.small_on_hub.cache_clear()
    yield home / "snapshots" / "abc"
    source.small_on_hub.cache_clear()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("tokenizer.json", {"added_tokens": [{}] * 100_001}, "it adds 100,001 tokens"),
        (
            "tokenizer.json",
            {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 101}},
            "the normalizer of its tokenizer.json makes a text 101 times as long",
        ),
        ("config.json", {"num_hidden_layers": 10_001}, "num_hidden_layers is 10,001"),
        ("vocab.txt", None, "holds more than 256 MiB"),
    ],
)
def test_what_a_hub_gave_is_bounded_as_a_folder_is(kept, name, change, said):
    """Both as a tokenizer and as a model, and as a folder of one's own."""
    assert tokenizers.read("some/model").get_vocab() == bpe().get_vocab()
    source.small_on_hub.cache_clear()
    path = kept / name
    if change is None:
        with path.open("wb") as file:
            file.truncate(source.MOST + 1)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for one in ("some/model", str(kept)):
        with pytest.raises(MeshError, match=said) as error:
            tokenizers.read(one)
        below = ".num_hidden_layers" if name == "config.json" else ""
        assert error.value.where == f"model.hf.tokenizer{below}"
        refused(said, f".path{below}", path=one)


def test_a_file_on_a_hub_that_is_too_large_is_not_fetched(monkeypatch):
    files = [types.SimpleNamespace(rfilename=name, size=size) for name, size in SIZES.items()]
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: types.SimpleNamespace(siblings=files))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("it is fetched"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(source, "_unreachable", lambda *_: "")
    with pytest.raises(MeshError, match=r"vocab\.json of big/model holds more than 256 MiB") as error:
        tokenizers.read("big/model")
    assert error.value.where == "model.hf.tokenizer"
    refused(r"vocab\.json of big/model holds more", ".path", path="big/model")


SIZES = {"config.json": 400, "model.safetensors": 2**33, "onnx/vocab.json": 2**40, "vocab.json": 2**28 + 1}


def test_only_safetensors_are_read(tmp_path):
    net = save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    refused("no model.safetensors: none", ".path", path=tmp_path)
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    error = refused("only pytorch_model.bin, which can run code", ".path", path=tmp_path)
    assert "safetensors" in error.instead


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"\xff" * 16 + data, lambda data: b""])
def test_damaged_weights_are_refused_by_file(damage, tmp_path):
    save(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    refused(r"model.safetensors is damaged", ".path", path=tmp_path)


def test_shards_are_looked_for_one_by_one(tmp_path):
    model().net.save_pretrained(tmp_path, max_shard_size="12KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1 and model(path=tmp_path)
    shards[1].unlink()
    refused(f"{shards[1].name} is missing", ".path", path=tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    refused("index.json is damaged", ".path", path=tmp_path)


@pytest.mark.parametrize(
    ("task", "lost", "what"),
    [
        (
            "classification",
            "bert.encoder.layer.1.output.dense.weight",
            "bert.encoder.layer.1.output.dense.weight missing",
        ),
        ("classification", "classifier.bias", "classifier.bias missing"),  # half a head is none
        ("classification", "bert.encoder.layer.1", "and 15 more missing"),
        (LM, "lm_head.weight", "lm_head.weight missing"),
    ],
)
def test_partial_weights_are_refused_by_name(task, lost, what, tmp_path):
    save(tmp_path, task, config=architecture("llama" if task == LM else "bert"))
    file = tmp_path / "model.safetensors"
    state = {name: value for name, value in load_file(file).items() if not name.startswith(lost)}
    save_file(state, file, {"format": "pt"})
    refused(f"are incomplete: .*{what}", ".path", task, path=tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path):
    save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "intermediate_size": 32}))
    refused(r"of shape \(24,\), where this model has \(32,\)", ".path", path=tmp_path)


def test_a_configuration_that_transformers_does_not_know(tmp_path):
    (tmp_path / "config.json").write_text("{")
    refused("cannot be read", ".path", path=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bird"}')
    refused("cannot be read.*bird", ".path", path=tmp_path)
    (tmp_path / "config.json").write_text('{"model": {}}')
    refused("cannot be read", ".path", path=tmp_path)


def test_code_that_comes_with_a_model_is_not_run_unasked(tmp_path):
    (tmp_path / "own.py").write_text("raise SystemExit('was run')\n")
    auto = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bird", "auto_map": auto}))
    error = refused("comes with code of its own, which is not run unasked", ".trust_remote_code", path=tmp_path)
    assert f"trust_remote_code: {tmp_path}" in error.instead


def test_code_that_is_asked_for_by_name_is_run(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    save(tmp_path / "agent")
    code = "from transformers import BertConfig, BertForSequenceClassification\n\n\n"
    code += "class Config(BertConfig):\n    model_type = 'bird'\n\n\n"
    code += "class Model(BertForSequenceClassification):\n    config_class = Config\n"
    (tmp_path / "agent" / "own.py").write_text(code)
    settings = json.loads((tmp_path / "agent" / "config.json").read_text())
    auto = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    settings |= {"model_type": "bird", "auto_map": auto}
    (tmp_path / "agent" / "config.json").write_text(json.dumps(settings))
    path = str(tmp_path / "agent")
    refused("comes with code of its own", ".trust_remote_code", path=path)
    made = model(path=path, trust_remote_code=path)
    assert type(made.net).__name__ == "Model" and made(batch()).shape == (3, 3)


# -- settings --


def test_unknown_architectures_and_settings(tmp_path):
    error = refused("knows no architecture 'brt'", ".config.model_type", config={"model_type": "brt"})
    assert "bert" in error.instead
    error = refused("bert has no setting 'hiden_size'", ".config.hiden_size", config=architecture("bert", hiden_size=8))
    assert "did you mean 'hidden_size'" in error.instead
    refused("bert cannot be built|bert: ", ".config", config=architecture("bert", hidden_size=15))
    save(tmp_path)
    refused("bert has no setting 'droput'", ".config.droput", path=tmp_path, config={"droput": 0.5})
    made = model(path=tmp_path, config={"hidden_dropout_prob": 0.5})
    assert made.net.dropout.p == 0.5


def test_an_architecture_without_the_task():
    refused("transformers has no vit for language_modelling", "", LM, config={"model_type": "vit"})


def test_attention_that_an_architecture_lacks(tmp_path):
    refused("bloom has no attention of this kind", ".attention", LM, config=architecture("bloom"))
    save(tmp_path, LM, config=architecture("bloom"), attention="eager")
    error = refused("no attention of this kind", ".attention", LM, path=tmp_path)
    assert error.instead == "attention: eager"


def test_padding_that_model_and_tokenizer_do_not_share(tmp_path):
    other = tokenizers.loads(tokenizers.dumps(bpe()))
    other.pad_token = "<s>"
    save(tmp_path, config=architecture("roberta"), tokenizer=other)
    refused("the tokenizer pads with 0; the model's is 1", ".tokenizer", path=tmp_path)
    bare = tokenizers.loads(tokenizers.dumps(bpe()))
    bare.pad_token = None
    refused("there is no pad token", ".tokenizer", config=architecture("llama"), tokenizer=bare)
    assert model(LM, config=architecture("llama"), tokenizer=bare).net.config.pad_token_id is None


def test_more_tokens_than_embeddings_and_more_positions_than_there_are(tmp_path):
    save(tmp_path, config=architecture("bert", vocab_size=300))
    big = tokenizers.loads(tokenizers.dumps(bpe()))
    big.add_tokens(["new"])
    refused("the tokenizer has 301 tokens, the model embeddings for 300", ".tokenizer", path=tmp_path, tokenizer=big)
    refused("301 tokens", ".config.vocab_size", config=architecture("bert", vocab_size=300), tokenizer=big)
    refused("samples may have 65 tokens, the model has 64", ".max_length", path=tmp_path, max_length=65)
    long = "the " * 100
    while len(bpe()(long)["input_ids"]) > 63:
        long = long[:-1]
    made = model(config=architecture("roberta"), max_length=63)  # it pads with 0, so that positions begin at 1
    assert batch([long]).ids.shape == (1, 63) and made(batch([long])).shape == (1, 3)
    refused(
        "samples may have 64 tokens, the model has 63", ".max_length", config=architecture("roberta"), max_length=64
    )


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "write path: FOLDER or hub id, or config"),
        ({"path": "a", "config": {"model_type": "bert"}}, "leave out config.model_type"),
        ({"config": {"model_type": "bert"}, "layers": [0]}, "`layers` is about the model at `path`"),
        ({"path": "a", "trust_remote_code": "true"}, "only where it is asked for by name: trust_remote_code: a"),
        ({"path": "a", "trust_remote_code": True}, "valid string"),
        ({"path": "a", "lora": {}, "prefix": {}}, "`lora` or `prefix`, not both"),
        ({"path": "a", "prefix": {}, "gradient_checkpointing": True}, "leave one of them out"),
        ({"path": "a", "layers": []}, "at least 1"),
        ({"path": "a", "layers": [-1]}, "greater than or equal to 0"),
        ({"path": "a", "tokenizer": {}}, "write one of bpe"),
        ({"path": "a", "tokenizer": {"bpe": {}, "characters": {}}}, "write one of bpe"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, what):
    with pytest.raises(ValidationError, match=what):
        HfConfig.model_validate(settings)


def test_a_model_from_settings_says_what_its_tokenizer_is():
    with pytest.raises(MeshError, match=r"(?s)made from `config` has none.*tokenizer: FOLDER"):
        tokenizers.for_model(HfConfig.model_validate({"config": {"model_type": "bert"}}), list)
