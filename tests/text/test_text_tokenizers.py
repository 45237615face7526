"""Tokenizers: made the same everywhere, carried as text, read whole."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_texts import TEXTS, HfConfig, bpe

from kdmesh.errors import MeshError
from kdmesh.text import tokenizers
from kdmesh.text.settings import TokenizerConfig
from kdmesh.text.source import plain_tokenizer

BPE, CHARACTERS = TokenizerConfig(bpe={"vocabulary": 300}), TokenizerConfig(characters={})
ELSEWHERE = """
import json, sys
from kdmesh.text.settings import TokenizerConfig
from kdmesh.text import tokenizers
config, texts = json.load(sys.stdin)
print(json.dumps(tokenizers.dumps(tokenizers.load(TokenizerConfig(**config), lambda: texts))))
"""


@pytest.mark.parametrize("config", [BPE, CHARACTERS], ids=["bpe", "characters"])
def test_equal_texts_give_an_equal_tokenizer_in_any_process(config):
    words = [f"{a}{b} {b}{a}" for a in "abcdefg" for b in "uvwxyz"] * 2 + TEXTS  # many pairs are equally frequent
    own = tokenizers.dumps(tokenizers.load(config, lambda: words))
    given = json.dumps([config.model_dump(exclude_none=True), words])
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == own


@given(st.text(min_size=1, max_size=40))
def test_every_text_can_be_written_in_bytes_and_read_back(text):
    told = bpe()(text, add_special_tokens=False, return_offsets_mapping=True)
    assert bpe().decode(told["input_ids"]) == text
    assert {at for start, end in told["offset_mapping"] for at in range(start, end)} == set(range(len(text)))


@given(st.text("the cat sat\n?", max_size=40), st.text("xyz", max_size=3))
def test_characters_are_tokens(text, strange):
    made = _characters()
    ids = made(text + strange, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text + strange) and made.decode(ids[: len(text)]) == text
    assert set(ids[len(text) :]) <= {made.unk_token_id}


def _characters(found=[]):  # noqa: B006 - made once
    if not found:
        found.append(tokenizers.load(CHARACTERS, lambda: ["the cat\nsat?"]))
    return found[0]


def test_what_a_tokenizer_writes_around_texts():
    tokenizer = bpe()
    assert tokenizer.decode(tokenizer("a", "b")["input_ids"]) == "<s>a</s>b</s>"
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 1, 2, 300)
    model = tokenizers.load(BPE, lambda: TEXTS, "language_modelling")
    assert model.decode(model("a")["input_ids"]) == "<s>a"


def test_a_tokenizer_comes_back_from_its_text(tmp_path):
    for tokenizer in (bpe(), _characters()):
        tokenizer.save_pretrained(tmp_path / str(len(tokenizer)))
        files = tokenizers.dumps(tokenizer)
        for again in (tokenizers.loads(files), tokenizers.read(str(tmp_path / str(len(tokenizer))))):
            assert tokenizers.dumps(again)["tokenizer.json"] == files["tokenizer.json"]
            assert again("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]
            assert again.special_tokens_map == tokenizer.special_tokens_map
            assert str(tmp_path) not in "".join(tokenizers.dumps(again).values())


def test_a_chat_template_is_carried():
    tokenizer = tokenizers.loads(tokenizers.dumps(bpe()))
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert tokenizers.loads(tokenizers.dumps(tokenizer)).chat_template == tokenizer.chat_template


def test_the_token_between_two_texts():
    assert tokenizers.separator(bpe()) == bpe().eos_token_id
    assert tokenizers.separator(tokenizers.load(BPE, lambda: TEXTS, "language_modelling")) is not None
    bare = tokenizers.loads(tokenizers.dumps(bpe()))
    bare.sep_token = None
    assert tokenizers.separator(bare) is None
    bare.sep_token = "<pad>"  # stands nowhere
    assert tokenizers.separator(bare) is None


def test_a_models_tokenizer_is_its_own_or_beside_its_weights(tmp_path):
    bpe().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    beside = HfConfig(path=str(tmp_path))
    made = HfConfig(path=str(tmp_path), tokenizer=CHARACTERS)
    assert len(tokenizers.for_model(beside, lambda: pytest.fail("texts are not needed"))) == 300
    assert len(tokenizers.for_model(made, lambda: ["ab"])) == 6


def test_what_cannot_be_read_or_made_is_refused(tmp_path):
    with pytest.raises(MeshError, match="no training texts") as error:
        tokenizers.load(BPE, lambda: ["", ""])
    assert error.value.where == "model.hf.tokenizer"
    with pytest.raises(MeshError, match="does not exist"):
        tokenizers.load(str(tmp_path / "nowhere"), list)
    with pytest.raises(MeshError, match=f"{tmp_path.name} (cannot be read|has no tokenizer)"):
        tokenizers.load(str(tmp_path), list)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(MeshError, match="cannot be read"):
        tokenizers.load(str(tmp_path), list)


def test_replacements_in_use_are_none_that_grow_a_text_beyond_measure() -> None:
    marks = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {"type": "Replace", "pattern": {"String": "``"}, "content": '"'},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    plain_tokenizer({"normalizer": {"type": "Sequence", "normalizers": 20 * marks}, "added_tokens": [{}] * 65_536}, "")


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_one_to_be_made_that_is_named_alone_is_answered_with_how_to_write_it(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MeshError, match=f"{kind} is not a folder here") as error:
        tokenizers.read(kind)
    assert error.value.instead == f"tokenizer: {{{kind}: {{}}}}"
