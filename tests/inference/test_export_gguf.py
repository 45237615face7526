"""A language model as GGUF, by a converter of the user's, and what Ollama is told of it."""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from test_export import refused, told
from transformers import PreTrainedTokenizerFast

import kdmesh
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.inference.export import llama_server
from kdmesh.inference.export.modelfile import Pieces, pieces_of
from kdmesh.spec.read import parse
from kdmesh.text.settings import CharactersConfig, TokenizerConfig
from kdmesh.text.tokenizers import begin_with, make

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BY_DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|h|>{{ m.role }}<|e|>\n\n{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant<|e|>\n\n{% endif %}"
)
COUNTED = "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}"
BRACED = CHATML.replace("<|im_end|>", "<{{ '{{' }}>")


def texts(path: Path, text: str) -> None:
    path.write_text("\n".join(json.dumps({"text": f"{number}: {text}"}) for number in range(40)), encoding="utf-8")


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    found = make(TokenizerConfig(characters=CharactersConfig()), ["abc"])
    found.chat_template = template
    found.add_special_tokens({"bos_token": "<|b|>"})
    return found


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("template", [CHATML, BY_DEFAULT, LLAMA])
def test_pieces_give_what_the_tokenizer_writes(template: str, begins: bool) -> None:
    own = tokenizer(template)
    if begins:
        begin_with(own, own.bos_token_id)
    pieces = pieces_of(own)
    talk = [{"role": role, "content": role * 2} for role in ("user", "assistant", "user", "assistant", "user")]
    for turns in (talk, talk[:1], [{"role": "system", "content": "be brief"}, *talk]):
        written = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert pieces.text(turns) == (written.removeprefix("<|b|>") if begins else written)
    assert ("Be kind." in pieces.start) == (template == BY_DEFAULT)
    assert ("<|b|>" in pieces.go()) == (template == LLAMA and not begins)
    assert pieces.assistant[1] == pieces.user[1]


def test_a_template_of_go_has_the_pieces_in_their_places() -> None:
    made = Pieces("0", ("s", "S"), ("u", "U"), ("a", "A"), "o").go()
    assert made == (
        "{{ if .System }}s{{ .System }}S{{ else }}0{{ end }}{{ range .Messages }}"
        '{{ if eq .Role "user" }}u{{ .Content }}U{{ else if eq .Role "assistant" }}a{{ .Content }}A{{ end }}{{ end }}o'
    )


@pytest.mark.parametrize("template", [COUNTED, BRACED, "{{ raise_exception('no') }}", "{{ messages[0].content }}"])
def test_a_template_that_does_more_is_refused(template: str) -> None:
    with pytest.raises(MeshError, match="does more than putting pieces around turns"):
        pieces_of(tokenizer(template))


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of agents: a language model, one with a prefix, and a classifier of numbers."""
    out = tmp_path_factory.mktemp("writers")
    texts(out / "a.jsonl", "the cat sat on the mat, and the dog ran")
    hf = {
        "config": {
            "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 64,
        },
        "tokenizer": {"characters": {}},
    }  # fmt: skip
    mesh = {
        "name": "lm", "task": "language_modelling", "text": {"max_length": 24},
        "data": {"dataset": {"text": {"path": str(out / "a.jsonl")}}, "test": 0.2},
        "agents": {"s": {"model": {"hf": hf}}, "p": {"model": {"hf": {**hf, "prefix": {"length": 2}}}}},
        "train": {"steps": 2, "batch_size": 4},
    }  # fmt: skip
    run_once(Request(parse(mesh), "inline", out=out))
    digits = {"name": "digits", "data": {"dataset": "digits"}, "agents": {"d": {"model": "mlp"}}, "train": {"steps": 1}}
    run_once(Request(parse(digits), "inline", out=out))
    return {path.name: path for path in out.glob("*/*/agents/*")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a converter that writes down what it was asked."""
    root = tmp_path / "llama.cpp"
    root.mkdir()
    (root / "convert_hf_to_gguf.py").write_text(
        "import sys, json, pathlib\n"
        "folder, _, out, _, numbers = sys.argv[1:]\n"
        "assert (pathlib.Path(folder) / 'config.json').is_file()\n"
        "pathlib.Path(out).write_text(json.dumps(['GGUF', numbers]))\n",
        encoding="utf-8",
    )
    return root


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here serves a file."""
    monkeypatch.setattr(llama_server, "LIBRARY", "no_such_library")


@pytest.mark.usefixtures("alone")
def test_the_converter_is_run_on_the_agent_s_folder(
    writers: dict[str, Path], checkout: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    words = ["export", writers["s"], "--to", "ollama", "--llama-cpp", checkout, "--numbers", "q8_0", "--out", out]
    said = told(capsys, *words)
    assert json.loads((out / "model.gguf").read_text(encoding="utf-8")) == ["GGUF", "q8_0"]
    record = json.loads((out / "export.json").read_text(encoding="utf-8"))
    assert record["compared"] == {"served": False, "why": "no_such_library is not installed"}
    assert "not served, and so not compared" in said and set(record["files"]) == {
        "model.gguf",
        "Modelfile",
        "LICENCES.md",
    }
    assert max(map(len, said.splitlines()[1:-1])) <= 80
    lines = (out / "Modelfile").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["FROM ./model.gguf", 'TEMPLATE """{{ .Prompt }}"""']
    assert "PARAMETER num_ctx 64" in lines and all(re.match(r"FROM|TEMPLATE|PARAMETER \w+ \S", one) for one in lines)
    assert told(capsys, *words)  # in the place of the one that stands there


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("agent", "words", "said"),
    [
        ("s", [], "GGUF is written by the converter of llama.cpp"),
        ("s", ["--llama-cpp", "{none}"], "there is no folder"),
        ("s", ["--llama-cpp", "{empty}"], "has no convert_hf_to_gguf.py"),
        ("s", ["--llama-cpp", "{broken}"], "does not convert s: ERROR: Model LlamaForCausalLM is not supported"),
        ("s", ["--llama-cpp", "{idle}"], "does not convert s: it says nothing"),
        ("s", ["--llama-cpp", "{bare}"], "pip install what its requirements name"),
        ("s", ["--llama-cpp", "{idle}", "--numbers", "q4"], "--numbers: found 'q4'"),
        ("s", ["--llama-cpp", "{idle}", "--no-code"], "is a program, which would be run"),
        ("s", ["--llama-cpp", "{idle}", "--data", "{texts}"], "no_such_library is not installed, which would serve"),
        ("d", ["--llama-cpp", "{idle}"], "GGUF is for language models"),
        ("p", ["--llama-cpp", "{idle}"], "a prefix beside it"),
    ],
)
def test_mistakes_are_told_and_nothing_is_left(
    agent: str, words: list[str], said: str, writers: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    said_by = {
        "broken": "import sys; sys.exit('ERROR: Model LlamaForCausalLM is not supported')",
        "idle": "",
        "bare": "import no_such",
    }
    (tmp_path / "empty").mkdir()
    for name, text in said_by.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "convert_hf_to_gguf.py").write_text(text, encoding="utf-8")
    places = {name: tmp_path / name for name in ("none", "empty", "broken", "idle", "bare")}
    places["texts"] = writers["s"].parents[3] / "a.jsonl"
    given = [word.format(**places) for word in words]
    assert said in refused(capsys, "export", writers[agent], "--to", "gguf", "--out", tmp_path / "out", *given)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bare", "broken", "empty", "idle"]


def test_a_column_of_labels_is_refused_as_of_every_language_model(
    writers: dict[str, Path], checkout: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_server, "missing", lambda: "")
    monkeypatch.setattr(llama_server, "served", lambda *given: nullcontext())
    monkeypatch.setattr(llama_server, "compared", lambda *given: {"served": True})
    data = writers["s"].parents[3] / "a.jsonl"
    words = ["--to", "gguf", "--llama-cpp", checkout, "--data", data, "--label", "text", "--out", tmp_path / "out"]
    assert "the tokens of texts themselves" in refused(capsys, "export", writers["s"], *words)
    assert not (tmp_path / "out").exists()


def test_what_only_gguf_has_is_refused_elsewhere(writers: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    assert "it is for gguf and ollama" in refused(capsys, "export", writers["d"], "--to", "onnx", "--numbers", "f16")
    for form in ("onnx", "torch_export"):
        assert "a prefix beside it" in refused(capsys, "export", writers["p"], "--to", form)


@pytest.mark.parametrize("form", ["onnx", "torch_export", "int8"])
def test_a_graph_of_a_language_model_says_what_comes_after_each_token(
    form: str, writers: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    more = ["--tolerance", "1"] if form == "int8" else []
    told(capsys, "export", writers["s"], "--to", form, "--out", tmp_path / form, *more)
    record = json.loads((tmp_path / form / "export.json").read_text(encoding="utf-8"))
    agent = kdmesh.load(writers["s"])
    width = agent.model.net.config.vocab_size
    assert record["outputs"][0]["shape"] == ["batch", "length", width] and len(record["compared"]["lengths"]) == 2
    assert record["compared"]["largest_difference"] <= (0.05 if form == "int8" else 1e-5)
    if form == "onnx":
        session = onnxruntime.InferenceSession(str(tmp_path / form / "model.onnx"), providers=["CPUExecutionProvider"])
        for shape in ((1, 3), (4, 11)):
            ids = torch.randint(1, width, shape, generator=torch.Generator().manual_seed(0))
            (found,) = session.run(None, {"input_ids": ids.numpy()})
            with torch.no_grad():
                assert np.allclose(found, agent.model.net(ids).logits.numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("xllamacpp"), reason="make test-endpoints brings xllamacpp")
@pytest.mark.skipif("KDMESH_LLAMA_CPP" not in os.environ, reason="KDMESH_LLAMA_CPP: a checkout of llama.cpp")
def test_a_converted_model_answers_as_the_agent_does(tmp_path: Path, capsys: Any) -> None:
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    file = Path(os.environ["KDMESH_SMOLLM"])  # for its tokenizer, which converters know
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(tmp_path / "tokenizer")
    own = tmp_path / "tokenizer" / "tokenizer.json"  # read out of that file it lacks what it does before its bytes
    told_ = json.loads(own.read_text(encoding="utf-8"))
    told_["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
    own.write_text(json.dumps(told_), encoding="utf-8")
    chats = [[("user", f"What is {number}?"), ("assistant", f"{number} is a number.")] for number in range(60)]
    rows = [{"messages": [{"role": role, "content": said} for role, said in chat]} for chat in chats]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256,
    }  # fmt: skip
    mesh = {
        "name": "lm", "task": "language_modelling", "text": {"max_length": 64},
        "data": {"dataset": {"text": {"path": str(tmp_path / "a.jsonl"), "messages": "messages"}}, "test": 0.2},
        "agents": {"s": {"model": {"hf": {"config": config, "tokenizer": str(tmp_path / "tokenizer")}}}},
        "train": {"steps": 8, "batch_size": 4, "optimizer": {"adamw": {"lr": 3e-3}}},
    }  # fmt: skip
    run_once(Request(parse(mesh), "inline", out=tmp_path))
    (folder,) = tmp_path.glob("lm/*/agents/s")
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, rows[:2])), encoding="utf-8")
    for numbers, most in (("f32", 0.05), ("q8_0", 0.5)):
        words = ["--llama-cpp", os.environ["KDMESH_LLAMA_CPP"], "--numbers", numbers, "--out", tmp_path / numbers]
        words += ["--data", tmp_path / "two.jsonl"]  # its tokens are asked one by one, each time for all of 49,152
        said = told(capsys, "export", folder, "--to", "gguf", *words)
        assert "served: largest difference" in said and "on 2 samples of two.jsonl" in said
        record = json.loads((tmp_path / numbers / "export.json").read_text(encoding="utf-8"))
        assert record["compared"]["served"] and record["compared"]["largest_difference"] <= most
        own, agent = record["scored"]["exported"], record["scored"]["agent"]
        assert own.keys() == agent.keys() and abs(own["loss"] - agent["loss"]) <= most
        with capsys.disabled():
            print(f"\n{numbers}: loss {own['loss']:.6f}, of the agent {agent['loss']:.6f}", end=" ")
