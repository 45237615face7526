"""Against servers that people run: llama.cpp's own, out of the wheel `xllamacpp`, and `transformers serve`.

``make test-endpoints`` fetches what they need and runs these. SmolLM2-135M-Instruct is served as a file of 4 bits, and
compared with the same file dequantised to float32 by transformers: the difference between these two is that of two
functions (llama.cpp rounds activations, too), up to 0.46 in a log-probability; a server that answered for another
place, text or model would differ by several.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from served_meshes import llama, write, written

from kdmesh.endpoints.client import Client
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.replies import Ask, Score
from kdmesh.endpoints.served import Needs, probe
from kdmesh.endpoints.settings import BudgetConfig, EndpointConfig
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunPaused
from kdmesh.spec.read import parse

GGUF = Path(os.environ.get("KDMESH_SMOLLM", ""))
PROGRAM = """
import sys, threading
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = 4096, 2, 1, -1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
threading.Event().wait()
"""
PATIENCE = 300.0  # seconds until a server that imports torch is there
MOST, MEAN = 0.46, 0.15  # differences of log-probabilities between the served file and its dequantised copy
TEXT = "The capital of France is Paris, and the capital of Italy is Rome. Water boils at a hundred degrees."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GGUF.is_file(), reason="make test-endpoints says where SmolLM2 is, in KDMESH_SMOLLM"),
]


@pytest.fixture(scope="module")
def llamacpp():
    """The address of a server of SmolLM2."""
    pytest.importorskip("xllamacpp")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(GGUF)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield url + "/v1"
        server.kill()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The same file, dequantised to float32, as a model and tokenizer of transformers; and the tokenizer's folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # what is printed here is read
    how = GgufConfig(dequantize=True)
    net = AutoModelForCausalLM.from_pretrained(
        str(GGUF.parent), gguf_file=GGUF.name, quantization_config=how, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(str(GGUF.parent), gguf_file=GGUF.name)
    folder = tmp_path_factory.mktemp("smollm")
    tokenizer.save_pretrained(folder)
    return net.eval(), tokenizer, folder


def config(url, **settings):
    return EndpointConfig(base_url=url, model="default", **settings)


def student(folder):
    """A tiny model that reads the tokens of a folder's tokenizer."""
    made = llama(8)["hf"]
    config = {**made["config"], "max_position_embeddings": 128}
    return {"hf": {**made, "tokenizer": str(folder), "config": config, "max_length": 96}}


def logs(net, ids):
    with torch.no_grad():
        return net(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def test_a_probe_of_llama_cpp(llamacpp):
    found = probe(config(llamacpp), Needs(top=20, n=2, drawn=1.0), "gpt")
    assert found.build.startswith("llama.cpp") and GGUF.name in found.about and found.counts
    assert found.listed == 20 and 0.3 < found.least <= found.most <= 1.0
    assert found.requests == 4  # one with log-probabilities, three that are compared
    print(found.said("gpt"))


def test_log_probabilities_of_given_texts(llamacpp, here):
    net, tokenizer, _ = here
    client = Client(config(llamacpp), Journal(None, BudgetConfig(), "gpt"), "gpt")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    expected, differences, first = logs(net, ids), [], 0
    for end in range(1, len(ids)):
        place = client.post(Score(tuple(ids[:end]), 20, False)).choices[0].tokens[0]
        own = {int(name.partition(" ")[0]): value for name, value in place.top}
        best = max(own, key=own.__getitem__)
        first += best == int(expected[end - 1].argmax())
        differences.append(abs(own[best] - float(expected[end - 1, best])))
    told = f"{len(differences)} places: mean {sum(differences) / len(differences):.3f}, most {max(differences):.3f}, "
    print(f"{told}the same likeliest token at {first}")
    assert max(differences) <= MOST and sum(differences) / len(differences) <= MEAN
    assert first >= 0.8 * len(differences)
    assert client.journal.requests == len(ids) - 1


def test_log_probabilities_of_what_it_writes(llamacpp, here):
    net, tokenizer, _ = here
    client = Client(config(llamacpp, route="completions"), Journal(None, BudgetConfig(), "gpt"), "gpt")
    prompt = "The capital of France is"
    (choice,) = client.post(Ask((("user", prompt),), 8, temperature=0.0, top=10)).choices
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt + choice.text, add_special_tokens=False)["input_ids"]
    expected = logs(net, whole)
    assert len(choice.tokens) == len(whole) - len(ids) == 8
    differences = [
        abs(token.logprob - float(expected[at - 1, whole[at]])) for at, token in enumerate(choice.tokens, len(ids))
    ]
    print(f"{len(whole) - len(ids)} written tokens: mean {sum(differences) / 8:.3f}, most {max(differences):.3f}")
    assert max(differences) <= MOST
    assert all(token.top[0][0] == token.text and len(token.top) == 10 for token in choice.tokens)
    assert "Paris" in choice.text


def test_a_budget_is_kept_to_the_request(llamacpp, tmp_path):
    client = Client(
        config(llamacpp, budget={"requests": 3}), Journal(tmp_path / "g.jsonl", BudgetConfig(requests=3), "g"), "g"
    )
    for number in range(3):
        client.post(Ask((("user", f"Say {number}."),), 1))
    with pytest.raises(RunPaused):
        client.post(Ask((("user", "Say 4."),), 1))
    assert client.tally.requests == 3 and 3 < client.journal.tokens < 200


def test_a_labeller_and_a_writer_and_a_teacher(llamacpp, here, tmp_path, monkeypatch):
    """Each trains a tiny student, and a second run of each sends nothing."""
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))
    endpoint = {"base_url": llamacpp, "model": "default", "concurrency": 2}
    folder = str(here[2])
    net = student(folder)
    text = {"model": {"api": {**endpoint, "tokenizer": folder, "max_length": 96, "top": 8, "scores": "positions"}}}
    words = {"animal": "animal", "colour": "color", "number": "number"}
    labelled = {
        "task": "classification",
        "data": {"dataset": {"text": {"path": str(write(tmp_path, 24)), "label": "label"}}, "validation": 0, "test": 6},
        "agents": {
            "gpt": {"model": {"api": {**endpoint, "top": 100, "words": words}}, "update": "frozen"},
            "s": {"model": {"hf": {**net["hf"], "tokenizer": {"bpe": {"vocabulary": 300}}, "max_length": 48}}},
        },
        "flows": [{"from": "gpt", "to": "s", "objective": {"kl": {"temperature": 1}}}],
    }  # fmt: skip
    sampling = {"max_new_tokens": 6}
    written = {
        "task": "language_modelling",
        "data": {"dataset": {"sums": {"below": 4}}, "train": 4, "validation": 0, "test": 2},
        "agents": {"gpt": {**text, "update": "frozen"}, "s": {"model": net}},
        "streams": {"w": {"generated_by": "gpt", "prompts": "train", "refresh": "once", "sampling": sampling}},
        "flows": [
            {"from": "labels", "to": "s", "objective": "ce", "stream": "w"},
            {"from": "gpt", "to": "s", "objective": "kl", "signal": {"top_k": {"k": 8}}},
        ],
    }  # fmt: skip
    for fields in (labelled, written):
        mesh = {"name": "m", "train": {"epochs": 1, "batch_size": 4}, "text": {"max_length": 96}, **fields}
        for number in range(2):
            summary, _, _ = run_once(Request(parse(mesh), "inline", out=tmp_path / "runs"))
            asked = summary["endpoints"]["gpt"]
            print(json.dumps(asked))
            assert asked["sent"] > 0 if number == 0 else (asked["sent"] == 0 and asked["found"] > 0)


@pytest.fixture(scope="module")
def transformers_serve(here, tmp_path_factory):
    """The address of `transformers serve` with the float32 copy; skipped where its libraries are missing."""
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("transformers serve lacks a library: pip install 'transformers[serving]'")
    net, _, folder = here
    net.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    # It lists the models of its cache, and serves any folder: with an empty cache it lists none.
    environment = {**os.environ, "HF_HOME": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("serve") / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment) as server,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while server.poll() is None and not _is_well(port) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert server.poll() is None and _is_well(port), log.read_text()[-4000:]
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            server.kill()


def _is_well(port):
    import httpx2

    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_transformers_serve_gives_text_alone(transformers_serve, here):
    url, model = transformers_serve
    net, tokenizer, _ = here
    served = EndpointConfig(base_url=url, model=model, retries=0, timeout=300)
    with pytest.raises(MeshError, match=r"gives no log-probabilities.*where logprobs, top_logprobs was asked for"):
        probe(served, Needs(top=5), "gpt")
    found = probe(served, Needs(drawn=0.0), "gpt")
    print(found.said("gpt"))
    turn = "What is the capital of France?"
    reply = Client(served, Journal(None, BudgetConfig(), "g"), "g").post(Ask((("user", turn),), 8, temperature=0.0))
    given = tokenizer.apply_chat_template(
        [{"role": "user", "content": turn}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    whole = net.generate(**given, max_new_tokens=8, do_sample=False)[0, given["input_ids"].shape[1] :]
    print(f"transformers serve writes {reply.choices[0].text!r}")
    assert reply.choices[0].text == tokenizer.decode(whole, skip_special_tokens=True)


def test_transformers_serve_as_a_writer(transformers_serve, tmp_path, monkeypatch):
    """A second run sends nothing."""
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "store"))
    url, folder = transformers_serve
    fields = written(url, {"greedy": True}, {"model": folder, "tokenizer": folder, "max_length": 96, "timeout": 300})
    fields["agents"]["s"] = {"model": student(folder)}
    fields |= {"data": {"dataset": {"sums": {"below": 4}}, "train": 4, "validation": 0, "test": 2}}
    for number in range(2):
        summary, _, _ = run_once(
            Request(parse({**fields, "text": {"max_length": 96}}), "inline", out=tmp_path / "runs")
        )
        asked = summary["endpoints"]["gpt"]
        print(json.dumps(asked))
        assert asked["sent"] > 0 if number == 0 else (asked["sent"] == 0 and asked["found"] > 0)
