"""Of what the results of a party's calls are made: the types by which a coordinator takes them, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import ConfigDict, Field, InstanceOf, JsonValue, TypeAdapter, with_config
from typing_extensions import TypedDict

SIGNALS = {"publish", "publish_consensus", "commit", "recall", "tell_labels"}

Array = InstanceOf[np.ndarray]
_PACKED = list[tuple[str, str, list[tuple[str, Array, str]]]]
_KEY = tuple[str, str, str, str]
PUBLISHED = dict[_KEY, _PACKED]
STATE = dict[str, _PACKED]
_NUMBER = int | float
_FINITE = Annotated[float, Field(allow_inf_nan=False)]
_SOME = Annotated[int, Field(ge=0)]
_SPENT = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_NUMBERS = _NUMBER | list[_NUMBER | list[_NUMBER | None] | None] | None


_FIGURE = dict[str, _NUMBERS | dict[str, JsonValue]]  # by metric: also by a column's values, or why one is not defined
_CLOSED = with_config(ConfigDict(extra="forbid"))


@_CLOSED
class _Process(TypedDict):
    """See :class:`kdmesh.hosts.costs.ProcessCosts`."""

    node: str
    process: int
    cpu_s: _SPENT
    peak_bytes: _SOME | None
    gpu_peak_bytes: dict[str, _SOME]


@_CLOSED
class _Costs(TypedDict):
    """See :class:`kdmesh.hosts.costs.HostCosts`."""

    flops: dict[str, tuple[_SOME | None, str]]
    seconds: dict[Literal["teaching", "training"], dict[str, _SPENT]]
    process: _Process
    profile: list[tuple[str, str, _SOME, _SPENT]]


@_CLOSED
class _Asked(TypedDict):
    """See :class:`kdmesh.hosts.endpoints.Asked`."""

    model: str
    build: str
    requests: _SOME
    tokens: _SOME
    sent: _SOME
    repeated: _SOME
    found: _SOME
    seconds: _SPENT
    spent: str


@_CLOSED
class _Answered(TypedDict):
    """See :class:`kdmesh.hosts.answered.Coverage`."""

    answered: _SOME
    rows: _SOME
    coverage: _FINITE
    over_all: NotRequired[_FINITE]


@_CLOSED
class _Consensus(TypedDict):
    """See :class:`kdmesh.hosts.measure.ConsensusFigures`."""

    quality: _FIGURE
    oracle: bool
    answered: NotRequired[_Answered]
    agreement: NotRequired[_FINITE]
    churn: NotRequired[_FINITE | None]


@_CLOSED
class _Proof(TypedDict, total=False):
    """See :class:`kdmesh.signals.compare.Comparison`; nothing of a rule that has neither weights nor a state."""

    by: str
    samples: _SOME
    difference: float | None
    limit: float
    file: str
    problem: str


@_CLOSED
class _Gate(TypedDict):
    """See :func:`kdmesh.hosts.gates.told`."""

    gate: str
    asked: _SOME
    shut: _SOME
    kept: NotRequired[_FINITE]


@_CLOSED
class _Described(TypedDict):
    """See :func:`kdmesh.hosts.measure.describe`."""

    parameters: int
    weights_sha256: str
    latency_ms: float | None
    forwards: int
    updates: int
    moved: bool | None
    left_out: int
    reports: dict[str, dict[str, _FINITE]]
    gates: dict[str, _Gate]
    softened: bool
    put_back: str
    chance: dict[str, Any] | None


@_CLOSED
class _Spent(TypedDict):
    """See :class:`kdmesh.privacy.summary.Spent`."""

    mechanism: str
    settings: str
    noise_by: str
    sensitivity: _FINITE
    sigma: _FINITE
    answers: _SOME
    more: _SOME
    rdp: _FINITE
    exact: _FINITE | None
    rate: _FINITE


@_CLOSED
class _Account(TypedDict):
    """See :class:`kdmesh.privacy.summary.Summary`."""

    party: str
    key: str
    unit: str
    adjacency: str
    epsilon: _FINITE
    delta: _FINITE
    mechanisms: list[_Spent]
    charges: _SOME
    answers: _SOME
    rdp: _FINITE
    exact: _FINITE | None
    left: _FINITE
    head: str


_ODD = list[tuple[str, str, str]]
_KEPT = tuple[Array, Array, Array | None, Array | None, Array | None, Array | None]
_LOSSES = tuple[int, tuple[int, ...], tuple[float | None, ...]]

RESULTS: dict[str, TypeAdapter[Any]] = {
    **dict.fromkeys(
        ("start", "begin", "end", "load", "renew", "away", "measured_at", "restore_best"), TypeAdapter(None)
    ),
    **dict.fromkeys(("take_weights", "take_labels"), TypeAdapter(None)),
    "run": TypeAdapter(tuple[dict[str, float], _ODD, list[_LOSSES]]),
    **dict.fromkeys(SIGNALS, TypeAdapter(PUBLISHED)),
    "export_state": TypeAdapter(STATE),
    "passed": TypeAdapter(int),
    "receive": TypeAdapter(_ODD),
    "evaluate": TypeAdapter(_FIGURE),
    "evaluate_consensus": TypeAdapter(_Consensus),
    "report": TypeAdapter(dict[str, _FINITE]),
    "answers": TypeAdapter(dict[str, _KEPT]),
    "keep_best": TypeAdapter(bool),
    "describe": TypeAdapter(dict[str, _Described]),
    "account": TypeAdapter(_Account | None),
    "costs": TypeAdapter(_Costs),
    "shelved": TypeAdapter(None),  # a party has no store
    "endpoints": TypeAdapter(dict[str, _Asked]),
    "sees": TypeAdapter(bool),
    "save": TypeAdapter(dict[str, bytes]),
    "save_agent": TypeAdapter(tuple[list[str], _Proof]),
    "save_rule": TypeAdapter(tuple[list[str], _Proof]),
}
"""Of what their results are made."""
