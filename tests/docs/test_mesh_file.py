"""The page about the mesh file is what the code says; its examples write every field and its recipes are whole."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

from kdmesh.cli import main
from kdmesh.spec import MeshSpec, Strict
from kdmesh.spec.base import Named
from kdmesh.spec.elsewhere import fields
from kdmesh.spec.yaml12 import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "mesh-file.md").read_text(encoding="utf-8")
SPEC = spec_from_file_location("generate", ROOT / "docs" / "generate.py")
GENERATE = module_from_spec(SPEC)
SPEC.loader.exec_module(GENERATE)


def test_the_page_is_what_the_code_says():
    assert GENERATE.mesh_page() == PAGE, "write it anew: make docs"


def parts(model=MeshSpec, found=None):
    """Every model of the file below one that a user writes fields of."""
    found = {} if found is None else found
    found[model.__name__] = model
    for field in model.model_fields.values():
        for name in MODELS:
            if name in str(field.annotation) and name not in found:
                parts(MODELS[name], found)
    return found


MODELS = {model.__name__: model for model in Strict.__subclasses__() if model.__module__.startswith("kdmesh.spec.")}
MODELS = {name: model for name, model in MODELS.items() if not issubclass(model, Named)}
SAME = {"EmaUpdate", "TrainOverride"}  # a rule around one model, and the fields of another


def test_every_part_of_the_file_is_on_the_page():
    assert {kind.__name__ for kind in GENERATE.SECTIONS} == parts().keys() - SAME


@pytest.mark.parametrize("kind", GENERATE.SECTIONS, ids=lambda kind: kind.__name__)
def test_an_example_writes_every_field_of_its_part_and_is_valid(kind):
    found = load(GENERATE.SECTIONS[kind])
    lines = found if isinstance(found, list) else [found]
    for line in lines:
        kind.model_validate(line)
        lines += line.get("do", []) if isinstance(line.get("do"), list) else []
    assert set().union(*lines) == fields(kind).keys()


def test_every_field_is_described():
    for kind in GENERATE.SECTIONS:
        for name, field in fields(kind).items():
            assert field.description, f"{kind.__name__}.{name}"


CHATS = [
    {"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]}
    for word in ("one", "two", "three", "four", "five", "six") * 20
]


def models(folder):
    """Two small causal models with a chat template, as `save_pretrained` leaves them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: n for n, sign in enumerate([*signs, "<pad>", "<end>"])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}"
    for name, width in (("teacher-model", 16), ("student-model", 8)):
        config = GPT2Config(vocab_size=len(fast), n_embd=width, n_layer=1, n_head=2, n_positions=128)
        config.eos_token_id, config.bos_token_id, config.pad_token_id = fast.eos_token_id, None, fast.pad_token_id
        GPT2LMHeadModel(config).save_pretrained(folder / name)
        fast.save_pretrained(folder / name)


@pytest.mark.parametrize("title", GENERATE.RECIPES)
def test_a_recipe_is_a_complete_file_that_check_passes(title, tmp_path, capsys):
    if title == "Chats":
        models(tmp_path)
        (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, CHATS)), encoding="utf-8")
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(GENERATE.RECIPES[title], encoding="utf-8")
    assert main(["check", str(mesh)]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.endswith("everything fits\n")
    assert yaml.safe_load(GENERATE.RECIPES[title])["name"] in PAGE
