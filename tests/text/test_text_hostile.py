"""Folders of text models that were made to harm: refused with a message; nothing is run, memory stays bounded."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from text_meshes import bert, gpt, modelled

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.text.source import quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Harm = Callable[[Path], Any]

CODE = "import os\nos.mkdir('harmed')\n"
MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> dict[str, Path]:
    pytest.importorskip("peft")
    home = tmp_path_factory.mktemp("saved")
    label = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(texts), "label": "label"}}}, train={"steps": 1, "batch_size": 8}
    )
    label.agent("s", bert(8, prefix={"length": 2}))
    label.flow("labels", "s", objective="ce")
    made = modelled(texts, train={"steps": 1, "batch_size": 8})
    made |= {"agents": {"s": {"model": gpt(8)}}, "connect": []}
    made["flows"] = [{"from": "labels", "to": "s", "objective": "ce"}]
    found = {}
    for name, mesh in {"prefix": label, "language": kdmesh.Mesh(**made)}.items():
        folder = mesh.run(backend="inline", out=home / name).folder
        assert folder is not None
        found[name] = folder / "agents" / "s"
    return found


def tokenizer(**fields: Any) -> Harm:
    return sets("tokenizer.json", **fields)


def grown(times: int) -> dict[str, Any]:
    """Replacements that write 1,000 characters between any two, one after the other."""
    one = {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000}
    return {"type": "Sequence", "normalizers": [one, {"type": "Sequence", "normalizers": [one] * (times - 1)}]}


def sets(file: str, **fields: Any) -> Harm:
    def write(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return write


def holds(file: str, content: str | bytes) -> Harm:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def gone(file: str) -> Harm:
    return lambda folder: (folder / file).unlink()


def large(file: str) -> Harm:
    def write(folder: Path) -> None:
        with (folder / file).open("ab") as opened:
            opened.truncate(3 << 30)

    return write


def pipe(file: str) -> Harm:
    def write(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return write


ADAPTER = "adapter/adapter_config.json"
UNKNOWN = [sets("config.json", model_type="evil", auto_map=MAP), holds("evil.py", CODE)]
CASES: dict[str, tuple[str, list[Harm], str]] = {
    "code of its own": ("language", UNKNOWN, "comes with code of its own, which is not run unasked"),
    "code that its own kdmesh.json trusts": (
        "language",
        [*UNKNOWN, sets("kdmesh.json", model={"hf": {"path": ".", "trust_remote_code": "."}})],
        "comes with code of its own",
    ),
    "rows of a billion": ("language", [sets("config.json", n_embd=10**9)], "cannot be built: Storage size"),
    "a vocabulary of a billion": ("language", [sets("config.json", vocab_size=10**9)], "with 8,000,"),
    "positions of 100 million": ("prefix", [sets("config.json", max_position_embeddings=10**8)], "with 800,0"),
    "types of 100 million": ("prefix", [sets("config.json", type_vocab_size=10**8)], "with 800,0"),
    "an inner layer of ten billion": ("prefix", [sets("config.json", intermediate_size=10**10)], "with 170,000,"),
    "an adapter that imports": (
        "prefix",
        [
            sets(ADAPTER, peft_type="LORA", megatron_config={"a": 1}, megatron_core="megatron_evil", r=2),
            sets(ADAPTER, target_modules=["query"]),
        ],
        "is no prefix of the sizes",
    ),
    "an adapter that asks the hub": (
        "prefix",
        [sets(ADAPTER, peft_type="PROMPT_TUNING", prompt_tuning_init="TEXT", tokenizer_name_or_path="bad/repo")],
        "is no prefix of the sizes",
    ),
    "an adapter of a billion": ("prefix", [sets(ADAPTER, num_virtual_tokens=10**9)], "is no prefix of the sizes"),
    "an adapter of layers": ("prefix", [sets(ADAPTER, num_layers=10**9)], "is no prefix of the sizes"),
    "an adapter that projects": ("prefix", [sets(ADAPTER, prefix_projection=True)], "is no prefix of the sizes"),
    "a pickled adapter": (
        "prefix",
        [gone("adapter/adapter_model.safetensors"), holds("adapter/adapter_model.bin", pickle.dumps(Pickled()))],
        "is damaged: ",
    ),
    "no adapter": ("prefix", [lambda folder: shutil.rmtree(folder / "adapter")], "is damaged: FileNotFoundError"),
    "an adapter of gigabytes": ("prefix", [large(ADAPTER)], "holds more than 1 MiB"),
    "an adapter of the hub": (
        "language",
        [holds("adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "bad/repo"}))],
        "it is an adapter of peft",
    ),
    "weights outside": (
        "language",
        [
            gone("model.safetensors"),
            holds("model.safetensors.index.json", json.dumps({"weight_map": {"a": "../../../../etc/passwd"}})),
        ],
        "leads outside",
    ),
    "pickled weights": (
        "language",
        [gone("model.safetensors"), holds("pytorch_model.bin", pickle.dumps(Pickled()))],
        "which can run code",
    ),
    "a kernel of the hub": (
        "language",
        [sets("kdmesh.json", model={"hf": {"attention": "bad/kernels"}})],
        "attention: found 'bad/kernels'",
    ),
    "ten billion classes": (
        "prefix",
        [sets("kdmesh.json", classes=10**10, labels=None)],
        "found 10,000,000,000 classes",
    ),
    "a billion labels": (
        "prefix",
        [sets("config.json", num_labels=10**9, id2label=None, label2id=None)],
        "num_labels is 1,000,000,000",
    ),
    **{
        f"a {file} of gigabytes": ("language", [large(file)], "holds more than")
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md")
    },
    "a normaliser that never ends": (
        "language",
        [tokenizer(normalizer=grown(4))],
        "the normalizer of its tokenizer.json makes a text 1,000,000,000,000 times as long",
    ),
    "a decoder that never ends": (
        "language",
        [tokenizer(decoder={"type": "Replace", "pattern": {"Regex": "a*"}, "content": "x" * 101})],
        "the decoder of its tokenizer.json makes a text 101 times as long",
    ),
    "added tokens without end": (
        "language",
        [tokenizer(added_tokens=[{"id": i, "content": f"t{i}", "special": False} for i in range(200_000)])],
        "it adds 200,000 tokens",
    ),
    "names of labels without end": (
        "prefix",
        [sets("config.json", id2label={str(i): f"l{i}" for i in range(200_000)})],
        "id2label has 200,000 entries",
    ),
    "a template of gigabytes": ("language", [large("chat_template.jinja")], "holds more than"),
    **{
        f"a {file} from a pipe": ("language", [pipe(file)], "is a named pipe")
        for file in ("tokenizer.json", "generation_config.json", "special_tokens_map.json", "README.md")
    },
    **{
        f"a {file} of brackets": ("language", [holds(file, "[" * 100_000)], "recursion")
        for file in ("config.json", "tokenizer.json", "generation_config.json")
    },
}


def memory() -> int:
    """The most this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_refused(
    name: str, saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, harms, said = CASES[name]
    folder = tmp_path / "agent"
    shutil.copytree(saved[kind], folder)
    for harm in harms:
        harm(folder)
    monkeypatch.chdir(tmp_path)
    before = memory()
    with pytest.raises(MeshError) as error, quiet():
        kdmesh.load(folder)
    assert said in str(error.value)
    assert memory() - before < 500 << 20
    assert not (tmp_path / "harmed").exists()


def test_paths_in_a_folders_own_settings_lead_nowhere(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    shutil.copytree(saved["language"], folder)
    sets("kdmesh.json", agent="../../x", model={"hf": {"path": "../../x", "tokenizer": "../../y"}})(folder)
    sets("config.json", auto_map=MAP)(folder)  # of a type that transformers knows: its own class is taken
    holds("evil.py", CODE)(folder)
    with quiet():
        assert kdmesh.load(folder)(["a cat"]).shape[1] == 300
    assert not (tmp_path / "harmed").exists()
