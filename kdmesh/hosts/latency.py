"""A process that measures how long an agent takes to answer: ``python -m kdmesh.hosts.latency``.

It reads one line of JSON, an :class:`Order`, and as many bytes of safetensors as the order says, and writes one line of
JSON. It is fresh, so that nothing counts that training has warmed up: the agent is loaded as a user loads it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import threading
import time
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch
    from torch import Tensor, nn

    from kdmesh.streams.texts import Sample

BATCHES = (1, 64)
WARM_UP, BUDGET = 0.3, 1.5
"""Seconds of calls of one batch size, by default: before any is timed, and that are timed."""
LEAST, MOST = 20, 5000  # calls that are timed
LIMIT = 60.0  # seconds after which fewer must do


@dataclass(frozen=True)
class Order:
    """What is measured: an agent's folder, as the run computed with it.

    ``texts``: samples of a model of texts, a dictionary each; of others the samples follow as ``size`` bytes. A model
    that is named by an import path may be in the folders ``beside``. ``warm_up``, ``budget``: see :func:`timed`.
    """

    folder: str
    device: str
    threads: int
    precision: str
    beside: list[str]
    texts: list[dict[str, Any]] | None = None
    size: int = 0
    warm_up: float = WARM_UP
    budget: float = BUDGET

    def line(self) -> bytes:
        """As one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def measure(order: Order, x: Tensor | None) -> dict[str, Any]:
    """Load an agent and time its forwards at each of `BATCHES`; ``x [n, ...]``: samples, where it reads no texts.

    Where there are fewer samples than a batch takes, they are repeated. Of texts the forward alone is timed, of what
    its tokenizer made of them, cut as in the run; of a language model with the logits of the next token alone. Raises
    whatever loading or computing does.
    """
    import torch

    from kdmesh.hosts import loading
    from kdmesh.hosts.precision import cast

    torch.set_num_threads(order.threads)
    device = torch.device(order.device)
    _refuse_absent(device)
    module: Any = loading.load(order.folder)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "load": _load()}
    if order.texts is not None:
        forward, samples, batch = _of_texts(module, [_sample(one) for one in order.texts], found)
    else:
        assert x is not None
        forward, samples, batch = _of_numbers(module, x)
    module.to(device).eval()
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    found["samples"] = samples
    wait = _waits(device)
    with torch.inference_mode(), cast(device.type, order.precision):
        for size in BATCHES:
            starts = range(min(samples, MOST)) if size == 1 else range(1)
            inputs = [batch([(start + n) % samples for n in range(size)], device) for start in starts]
            found[str(size)] = figures(timed(forward, inputs, wait, order.warm_up, order.budget), size)
    return found


def timed(
    forward: Callable[[Any], Any],
    inputs: Sequence[Any],
    wait: Callable[[], None],
    warm_up: float,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each call on the inputs in turn, until ``budget`` is spent; not of those for ``warm_up``.

    At least `LEAST` are timed, unless they take more than `LIMIT`, and one at any rate.
    """
    turn: Iterable[Any] = cycle(inputs)
    begun, times = clock(), list[float]()
    warm = spent = 0.0
    for number, one in enumerate(turn):
        start = clock()
        forward(one)
        wait()
        took = clock() - start
        if number == 0 or warm < warm_up:
            warm += took
            continue
        times.append(took)
        spent += took
        enough = len(times) >= LEAST and spent >= budget
        if enough or len(times) >= MOST or clock() - begun > LIMIT:
            return times
    raise AssertionError("there are no samples")


def figures(times: Sequence[float], size: int) -> dict[str, float]:
    """Median, 95th percentile (both by nearest rank) and mean rate of calls that took so many seconds."""
    ranked = sorted(times)
    p50, p95 = (ranked[math.ceil(share * len(ranked)) - 1] * 1000 for share in (0.5, 0.95))
    return {"calls": len(ranked), "p50_ms": p50, "p95_ms": p95, "samples_per_s": size * len(ranked) / sum(ranked)}


def machine() -> dict[str, Any]:
    """What figures of latency depend on, beside the agent."""
    import torch

    return {
        "node": platform.node(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _load() -> float | None:
    """How many processes wanted a CPU over the last minute: a figure is worth less where others were at work."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _refuse_absent(device: torch.device) -> None:
    import torch

    from kdmesh.errors import MeshError

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise MeshError(f"its device, {device}, is not on this machine", instead="the machine of the run")


def _waits(device: torch.device) -> Callable[[], None]:
    """What waits until a device has done what it was given."""
    import torch

    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


Made = tuple["Callable[[Any], Any]", int, "Callable[[list[int], torch.device], Any]"]
"""A forward, how many samples there are, and what makes a batch of those at some positions."""


def _of_numbers(module: nn.Module, x: Tensor) -> Made:
    from kdmesh.hosts.modules import output
    from kdmesh.signals.lazy import dense

    return lambda batch: dense(output(module(batch))), len(x), lambda at, device: x[at].to(device)


def _of_texts(saved: Any, samples: list[Sample], found: dict[str, Any]) -> Made:
    """The forward of a model of transformers, of tokens; samples in which nothing is asked for are left out."""
    import torch

    from kdmesh.errors import MeshError
    from kdmesh.signals.lazy import dense, taken
    from kdmesh.streams.texts import Texts
    from kdmesh.text.heads import CAUSAL, LISTS

    head = saved.encoder.head
    encoded, _ = saved.encoder.encode(Texts(samples))
    if head.per == "units":
        encoded = encoded.select(encoded.counts.nonzero().flatten())
    if not len(encoded):
        raise MeshError("it can read none of the samples", instead="samples with texts")
    if head in LISTS:
        saved.model.classes = max(len(one.candidates or ()) for one in samples)
    lengths = encoded.lengths
    found["tokens"] = {"average": float(lengths.double().mean()), "most": int(lengths.max())}

    def batch(at: list[int], device: torch.device) -> Any:
        tokens = encoded.select(torch.tensor(at)).whole().to(device)
        return tokens, tokens.counts.cumsum(0) - 1 if head == CAUSAL else None

    def forward(made: Any) -> Tensor:
        tokens, last = made
        answers = saved.model(tokens)
        return dense(answers if last is None else taken(answers, last))

    return forward, len(encoded), batch


def _sample(record: dict[str, Any]) -> Sample:
    """A sample that JSON had: its lists are tuples again."""
    from kdmesh.streams.texts import Sample

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return Sample(**{name: tuples(value) for name, value in record.items()})


def main() -> int:
    """Measure what is ordered; returns the exit code."""
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    content = sys.stdin.buffer.read(order.size)
    threading.Thread(target=_until_alone, daemon=True).start()
    out = sys.stdout
    sys.path += [folder for folder in order.beside if folder not in sys.path]
    from kdmesh.errors import MeshError

    code, told = 0, dict[str, Any]()
    try:
        with redirect_stdout(sys.stderr):
            from safetensors.torch import load

            told = measure(order, load(content)["x"] if order.size else None)
    except MeshError as error:
        code, told = error.exit_code, {"error": str(error)}
    except Exception as error:  # of whatever a model does
        code, told = 1, {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
    out.write(json.dumps(told) + "\n")
    out.flush()
    return code


def _until_alone() -> None:
    """End where standard input does: nobody waits for the figures any more."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
