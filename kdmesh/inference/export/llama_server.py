"""A file of GGUF served by llama.cpp on loopback, and asked what its agent is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from kdmesh.inference.trained import Trained
    from kdmesh.streams.tokens import Tokens

    Ask = Callable[[str, dict[str, Any]], dict[str, Any]]

LIBRARY = "xllamacpp"
PROGRAM = """
import sys, threading
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], 0
params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.verbosity = int(sys.argv[2]), 1, 1, -1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""  # ends with whoever began it: its standard input then closes
PATIENCE = 300.0  # seconds for an answer
MOST = 5  # of the likeliest tokens are compared
LONG = 48  # tokens at most of a text that is asked


def missing() -> str:
    """Why nothing here can serve a file; "" where something can."""
    return f"{LIBRARY} is not installed" if find_spec(LIBRARY) is None else ""


def compared(trained: Trained, ask: Ask, tolerance: float) -> dict[str, Any]:
    """How far a served file's log-probabilities are from the agent's, for texts of two lengths.

    MeshError where that is more than ``tolerance``, or where its tokenizer reads a text otherwise.
    """
    encoder, who = trained.module.encoder, trained.config.agent
    words = [word for word in map(encoder.word, range(encoder.vocabulary)) if word.strip().isalpha()] or ["a"]
    most = min(LONG, encoder.max_length) - 2
    texts = [" ".join(word.strip() for word in words[-count:]) for count in (max(1, most // 6), max(2, most // 2))]
    worst, lengths = 0.0, []
    with trained.settled():
        for text in texts:
            ids = trained.module.tokenizer(text)["input_ids"]
            theirs = ask("tokenize", {"content": text, "add_special": True})["tokens"]
            if theirs != ids:
                what = f"the file's tokenizer reads a text of {who} as {theirs[:8]}, and the agent as {ids[:8]}"
                raise MeshError(what, where="--to", instead="a tokenizer that llama.cpp knows")
            ids = ids[:most]
            lengths.append(len(ids))
            own = torch.log_softmax(trained.module.model.net(torch.tensor([ids])).logits[0, -1].float(), -1)
            for token, found in _next(ask, ids, MOST).items():
                worst = max(worst, abs(float(own[token]) - found))
    if not worst <= tolerance:
        what = f"the served file is {worst:.2f} of a log-probability from {who}, more than {tolerance:g}"
        raise MeshError(what, where="--tolerance", instead="numbers of more bits (--numbers f32), or a higher one")
    return {"served": True, "lengths": lengths, "largest_difference": worst, "tolerance": tolerance}


def _next(ask: Ask, ids: list[int], most: int) -> dict[int, float]:
    """The log-probabilities of so many of the likeliest tokens after these."""
    answer = ask("completion", {"prompt": ids, "n_predict": 1, "n_probs": most, "temperature": 0.0})
    return {token["id"]: token["logprob"] for token in answer["completion_probabilities"][0]["top_logprobs"]}


def log_probs(ask: Ask, x: Tokens, width: int) -> Tensor:
    """Those of every token after each that is to be predicted, ``[N, width]`` float32: a question for each."""
    length, found = x.ids.shape[1], torch.full((len(x.units), width), -torch.inf)
    for number, unit in enumerate(x.units.tolist()):
        row, at = divmod(unit, length)
        told = _next(ask, x.ids[row, : at + 1].tolist(), width)
        known = [token for token in told if token < width]
        found[number, known] = torch.tensor([told[token] for token in known])
    return found


@contextmanager
def served(trained: Trained, file: Path) -> Iterator[Ask]:
    """``ask(path, question) -> answer`` of a server of this file, which ends with the block."""
    room = trained.module.encoder.max_length + MOST
    words = [sys.executable, "-c", PROGRAM, str(file), str(room)]
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe, stderr=none) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            if not address:
                what = "llama.cpp does not load the file that its converter wrote"
                raise MeshError(what, where="--llama-cpp", instead=f"a checkout that fits {LIBRARY}")
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

            def ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
                body = json.dumps(question).encode()
                request = urllib.request.Request(f"{address}/{path}", body, {"Content-Type": "application/json"})
                with direct.open(request, timeout=PATIENCE) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found

            yield ask
        finally:
            server.kill()
