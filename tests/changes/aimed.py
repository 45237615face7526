"""Changes of a mesh file that are aimed at what must fit together: lengths, names, layers, periods, settings of offers.

Each is called with the file's data, a seeded generator and the file's words, changes the data in place and says what it
did, or "" where there was nothing to change.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from places import NUMBERS, ODD, Place, places, sample, short

from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec import MeshSpec
from kdmesh.spec.data import StreamSpec
from kdmesh.spec.flows import ConsensusSpec, FlowSpec
from kdmesh.spec.program import ProgramItem

LAYERS = ["layers.0", "layers.1", "layers.2", "layers.9", "layers", "blocks.0", "stem", "head", "branches.1", "", "."]
SPLITS = ["train", "validation", "test", "transfer"]
SIGNALS = ["logits", "votes", "hidden", *({"top_k": {"k": k}} for k in (0, 1, 3, 10, 11, 10**9, -1, True, "3", None))]
SIZES = [0, 1, 2, 10, 0.0, 0.001, 0.5, 0.999, 1.0, 1e9, -1, -0.5]
TEMPERATURES = [0, 0.0, -1, 1e-6, 1e-9, 1e6, 1e30, True, "4", None, [4]]
RAMPS = [
    {"start": s, "end": e, "epochs": n} for s, e, n in [(0, 1, 1), (1, 0, 10**9), (0, 0, 3), (-1, 1, 2), (1, 1e9, 2)]
]
FIELDS: dict[str, list[Any]] = {
    "refresh": ["step", "epoch", "round", "once", "1 steps", "3 steps", "1000000 steps", "N steps", "0 steps", None],
    "stale": ["publish", "snapshot", "recorded", None],
    "signal": SIGNALS,
    "as": ["target", "input", "weights"],
    "sees": ["before", "after"],
    "detach": [True, False],
    "mode": ["auto", "train", "eval"],
    "weight": [0, 0.0, -1, 0.5, 1e-30, 1e30, None, *RAMPS],
    "labels": [0, 0.0, -1, 0.5, None, 1e30, *RAMPS],
    "tap": [{"of": a, "to": b} for a in LAYERS[:3] for b in LAYERS[1:5]] + [[], ["layers.0", "layers.0"], "layers.0"],
    "space": ["probs", "logits", "loss", "gradient", None],
    "temperature": TEMPERATURES,
}
"""What is tried in these fields, of flows, consensus nodes and strategies."""

OPTIMIZERS = ["adamw", "sgd", "lbfgs", "sparseadam", *(n for n in vars(torch.optim) if n[:1].isupper())]
ARGUMENTS: dict[str, list[Any]] = {
    "lr": [0, -1, 1e-9, 1e9, "1e-3", None, [1e-3], True, 10**40],
    "betas": [[0.9], [0.9, 0.99, 0.999], [1.0, 1.0], [-1, 0.5], 0.9, [], ["a", "b"], [0, 0]],
    "momentum": [0.9, 1.0, 2, -1, None, "much"],
    "nesterov": [True, "yes"],
    "weight_decay": [-1, 1e9, 0, None],
    "eps": [0, -1, 1e30],
    "foreach": [True, False, None],
    "fused": [True, False],
    "amsgrad": [True],
    "maximize": [True],
    "capturable": [True],
    "differentiable": [True],
    "params": [[]],
}
SCHEDULES = [
    "constant",
    "cosine",
    "linear",
    *(n for n in vars(torch.optim.lr_scheduler) if n.endswith(("LR", "Restarts"))),
]
SCHEDULED: dict[str, list[Any]] = {
    "warmup": [0, 1, 10**9, 0.5, -1, 1.5, "many"],
    "step_size": [0, 1, -1, "one"],
    "gamma": [0, 2, -1, 1e30, None],
    "T_max": [0, 1, 10**6, -1],
    "T_0": [0, 1, -1],
    "max_lr": [0, 1, -1, [1, 2]],
    "total_steps": [0, 1, 10**6, -1],
    "milestones": [[], [1, 2], [-1], 3, ["a"]],
    "base_lr": [0, 1e-3],
    "start_factor": [0, 0.5, 5],
    "total_iters": [0, -1, 3],
    "last_epoch": [0, 3],
    "optimizer": [None],
}


def empty(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Nothing where something stood: an empty text, list or mapping, or null."""
    place = draw.choice(_leaves(data))
    place.holder[place.key] = new = draw.choice(["", [], {}, None, " ", [None], [[]], {"": None}])
    return f"{place.path} becomes {new!r}"


def length(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """A list that is shorter, longer, nested or no list."""
    lists = [place for place in _leaves(data) if isinstance(place.value, list) and place.value]
    if not lists:
        return ""
    place = draw.choice(lists)
    old = place.value
    new = draw.choice([old[:-1], old[1:], old * 2, [*old, old[0]], [old], old[0], [*old, None], old[::-1], old * 50])
    place.holder[place.key] = new
    return f"{place.path}: {short(old)} becomes {short(new)}"


def wrong_type(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """A value of another type among the settings of what is named: those are free in the file's own model."""
    settings = [place for place in _leaves(data) if isinstance(place.value, dict) and len(place.value) == 1]
    settings = [place for place in settings if isinstance(next(iter(place.value.values())), dict)]
    if not settings:
        return ""
    place = draw.choice(settings)
    ((name, config),) = place.value.items()
    key = draw.choice([*config, draw.choice(words)])
    config[key] = new = draw.choice([*ODD, *NUMBERS, {"a": 1}, [[]], [None], ["a", 1], {}])
    return f"{place.path}.{name}.{key} becomes {new!r}"


def other_name(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """The name of an agent, stream, consensus node or split where another stands, or two that change places."""
    kinds = {kind: list(data.get(kind) or {}) for kind in ("agents", "streams", "consensus")}
    names = [name for kind in kinds.values() for name in kind]
    used = [place for place in _leaves(data) if isinstance(place.value, str) and place.value in [*names, *SPLITS]]
    if not used:
        return ""
    place = draw.choice(used)
    old, new = place.value, draw.choice([*names, *SPLITS, "labels"])
    places_of = [place] if draw.random() < 0.6 else [one for one in used if one.value in (old, new)]
    for one in places_of:
        one.holder[one.key] = new if one.value == old else old
    return f"{place.path}: {old!r} and {new!r} change places in {len(places_of)}"


def layer(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Names of layers: an exit, taps, what a flow compares."""
    name, agent = draw.choice(list(data["agents"].items()))
    found = draw.choice([*LAYERS, *_layers(data)])
    kind = draw.choice(["exit", "taps", "tap"])
    if kind == "exit":
        agent["exit"] = found
    elif kind == "taps":
        agent["taps"] = {draw.choice(["mid", "layers.0", "", *words]): found}
    else:
        where, settings = _settings(data, draw)
        settings["tap"] = draw.choice([{"of": found, "to": draw.choice(LAYERS)}, found, [found, draw.choice(LAYERS)]])
        settings["objective"] = draw.choice(["hint", "attention", "kl", *registry().names("objectives")])
        return f"{where} compares {settings['tap']!r} by {settings['objective']}"
    return f"agents.{name}.{kind} becomes {agent[kind]!r}"


def task(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Another task, or class weights, of the right length and not."""
    weights = draw.choice([[1] * 10, [0.5] * 10, [0] * 10, [1] * 9, [1] * 11, [], [-1] * 10, [1, 0] * 5, ["a"] * 10, 3])
    smoothing = draw.choice([0, 0.1, 0.999, 1, -1, "much", None])
    settings = draw.choice([{"class_weights": weights}] * 3 + [{"label_smoothing": smoothing}, {"foo": 1}])
    if draw.random() < 0.3:
        where, config = _settings(data, draw)
        config["objective"] = {"ce": settings}
        return f"{where}.objective becomes {short(config['objective'])}"
    name = draw.choice(["classification"] * 4 + registry().names("tasks"))
    data["task"] = draw.choice([{name: settings}] * 4 + [name])
    return f"task becomes {short(data['task'])}"


def metrics(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Metrics beside the task's, and what early stopping watches."""
    known = registry().names("metrics")
    if draw.random() < 0.3:
        stop = {"metric": draw.choice([*known, *words, "", None]), "patience": draw.choice([1, 2, 0, -1, 10**9, "1"])}
        draw.choice([data, *data["agents"].values()]).setdefault("train", {})["early_stopping"] = stop
        return f"early stopping becomes {stop}"
    named = [draw.choice([*known, draw.choice(words)]) for _ in range(draw.choice([0, 1, 2, 9]))]
    data["metrics"] = [draw.choice([name, name, {name: {}}, {name: None}, {name: {"bins": 3}}]) for name in named]
    return f"metrics become {short(data['metrics'])}"


def optimizer(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Another optimiser or schedule of torch, with arguments that it knows and that it does not."""
    train = draw.choice([data, *data["agents"].values()]).setdefault("train", {})
    kind, names, arguments = draw.choice([("optimizer", OPTIMIZERS, ARGUMENTS), ("schedule", SCHEDULES, SCHEDULED)])
    keys = draw.sample(list(arguments), draw.choice([0, 1, 1, 2]))
    train[kind] = {draw.choice(names): {key: draw.choice(arguments[key]) for key in keys}}
    return f"{kind} becomes {train[kind]}"


def offered(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Another objective or rule, with settings that its model knows and values at the ends of what it allows."""
    if draw.random() < 0.3 and not _lengthen(data):
        return ""
    kind = draw.choice(["objectives", "consensus"])
    offer = registry().find(kind, draw.choice(registry().names(kind)))
    config = {
        name: draw.choice([*TEMPERATURES] if name == "temperature" else [sample(field.annotation, draw, words), *SIZES])
        for name, field in offer.config.model_fields.items()
        if field.is_required() or draw.random() < 0.6
    }
    where, settings = _settings(data, draw)
    field = "objective" if kind == "objectives" else "rule" if where.startswith("consensus") else "consensus"
    settings[field] = {offer.name: config}
    return f"{where}.{field} becomes {short(settings[field])}"


def fields(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Some fields of one flow, consensus node or strategy together, the mesh in its long form for half of them."""
    if draw.random() < 0.7 and not _lengthen(data):
        return ""
    where, settings = _settings(data, draw)
    if "flows" in where:
        known = [name if name != "as_" else "as" for name in FlowSpec.model_fields]
        known += ["refresh", "stale", "signal"]  # what must fit together most
    elif "consensus" in where:
        known = list(ConsensusSpec.model_fields)
    else:
        known = [*settings, "refresh", "stale", "stream", "labels_stream", "tap", "include_self"]
    names = [name for name in known if name in FIELDS] or list(FIELDS)
    changed = {name: draw.choice(FIELDS[name]) for name in draw.sample(names, min(len(names), draw.choice([1, 2, 3])))}
    settings.update(changed)
    return f"{where} gets {changed}"


def stream(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """A stream more, or another under a name that there is, used by a strategy or flow."""
    names = [*(data.get("streams") or {}), *SPLITS, "more"]
    agents = list(data["agents"])
    pool: dict[str, list[Any]] = {
        "of": names,
        "size": SIZES,
        "only": [[0], [0, 1], [], [99], ["0"], [-1], list(range(10)), [0, 0]],
        "without": [[0], list(range(10)), [99], []],
        "labels": [True, False],
        "private": [True, False],
        "replay": [True, False],
        "shards": [
            {"by": by, "of": draw.sample(agents, draw.randint(0, len(agents))), "alpha": alpha, "classes": classes}
            for by in ("iid", "dirichlet", "class", "column")
            for alpha, classes in ((0.5, 2), (1e-6, 1), (1e9, 10), (0, 11))
        ],
    }
    assert set(pool) <= set(StreamSpec.model_fields)
    name = draw.choice(["more", "more", *names])
    new = {key: draw.choice(pool[key]) for key in draw.sample(list(pool), draw.choice([0, 1, 2, 3]))}
    data["streams"] = {**(data.get("streams") or {}), name: new}
    where, settings = _settings(data, draw)
    settings[draw.choice(["stream", "stream", "labels_stream"]) if "connect" in where else "stream"] = name
    return f"streams.{name} becomes {short(new)}, read by {where}"


def data_settings(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Splits of other sizes, too large together or empty."""
    if not isinstance(data.get("data"), dict):
        return ""
    keys = draw.sample(["test", "validation", "transfer", "train"], draw.choice([1, 2, 3]))
    changed = {key: draw.choice([*SIZES, 100, 1796, 1797, 1798]) for key in keys}
    data["data"].update(changed)
    return f"data gets {changed}"


def agent(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Some fields of one agent together."""
    agents = list(data["agents"])
    name = draw.choice(agents)
    views = [{view: {}} for view in registry().names("views")]
    pool: dict[str, list[Any]] = {
        "weights_of": agents,
        "init_of": agents,
        "update": ["frozen", "grad", *({"ema": {"of": of, "decay": d}} for of in agents for d in (0, 0.5, 1, -1))],
        "labels": [[0, 1], [], list(range(10)), list(range(11)), [9, 0], [0, 0], ["0"], [-1]],
        "view": [{"augment": [draw.choice(views)], "draws": n} for n in (0, 1, 3, 10**9, None)],
        "on_loss": ["drop", "stop", "restart"],
        "count": [1, 2, 3, 0, 40],
        "seed": [-1, 0, 2**63, 2**64, 10**40],
        "saved": ["copy", "reference"],
        "model": [{model: {}} for model in registry().names("models")],
    }
    changed = {key: draw.choice(pool[key]) for key in draw.sample(list(pool), draw.choice([1, 1, 2, 3]))}
    data["agents"][name] = {**data["agents"][name], **changed}
    return f"agents.{name} gets {short(changed)}"


def training(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Some training settings together, of all or of one agent."""
    pool: dict[str, list[Any]] = {
        "epochs": [1, 2, 3],
        "steps": [1, 2, 7, 8, None],
        "batch_size": [1, 2, 3, 63, 1257, 1258, 1437, 1438, 10**9],
        "drop_last": [True, False],
        "accumulate": [1, 2, 3, 20, 10**9],
        "clip": [1e-30, 1e30, 1],
        "precision": ["bf16", "fp16", "fp32"],
        "threads": [1, 2, "auto", 1024],
        "device": ["cpu", "cuda", "cuda:0", "mps", "meta", "cpu:0", ""],
        "evaluate_every": [1, 2, 3, 10**9],
        "early_stopping": [{}, {"patience": 1}, {"metric": "accuracy"}],
        "schedule": [{"cosine": {"warmup": w}} for w in (0, 1, 0.5, 10**9)],
    }
    train = draw.choice([data, *data["agents"].values()]).setdefault("train", {})
    changed = {key: draw.choice(pool[key]) for key in draw.sample(list(pool), draw.choice([1, 2, 3, 4]))}
    train.update(changed)
    return f"train gets {changed}"


def program(data: dict[str, Any], draw: random.Random, words: list[str]) -> str:
    """Another program, or other fields of a line of it, the mesh in its long form."""
    if not _lengthen(data):
        return ""
    names = [*data["agents"], *(data.get("consensus") or {})]
    lessons = ["own", "digest", *(flow["lesson"] for flow in data.get("flows", ()) if flow.get("lesson"))]
    lists = [[draw.choice(names)], list(data["agents"]), [], names[:2]]
    pool: dict[str, list[Any]] = {
        "of": lists,
        "lesson": lessons,
        "train": lists,
        "publish": lists,
        "to": names,
        "epochs": [1, 2],
        "steps": [1, 5],
        "repeat": [1, 2],
        "until": [{"agreement": 0.5}, {"patience": 1}, {}, {"agreement": 2}],
        "do": [[], [{"lesson": "own", "epochs": 1}], [{"lesson": lessons[-1], "epochs": 1}, {"publish": names[:1]}]],
    }
    assert set(pool) == set(ProgramItem.model_fields)
    changed = {key: draw.choice(pool[key]) for key in draw.sample(list(pool), draw.choice([1, 2, 3]))}
    lines = data.setdefault("program", [])
    if lines and draw.random() < 0.7:
        line = draw.choice([*lines, *(inner for outer in lines for inner in outer.get("do") or ())])
        line.update(changed)
    else:
        lines.append(changed)
    return f"program gets {short(changed)}"


AIMED: list[Callable[[dict[str, Any], random.Random, list[str]], str]] = [
    *(empty, length, wrong_type, other_name, layer, task, metrics, optimizer, optimizer, offered, offered),
    *(fields, fields, fields, stream, data_settings, agent, training, program),
]
"""Each as often as it is tried."""


def _leaves(data: dict[str, Any]) -> list[Place]:
    found = places({"": data}, "", MeshSpec, "")
    return [place for place in found if place.path not in ("", "name", "description")]


def _settings(data: dict[str, Any], draw: random.Random) -> tuple[str, dict[str, Any]]:
    """Where a flow, a consensus node or a strategy stands, and its fields."""
    found = [(f"flows.{at}", flow) for at, flow in enumerate(data.get("flows") or [])]
    found += [(f"consensus.{name}", node) for name, node in (data.get("consensus") or {}).items()]
    for at, item in enumerate(data.get("connect") or []):
        ((name, config),) = item.items()
        found.append((f"connect.{at}.{name}", config))
    return draw.choice([(where, settings) for where, settings in found if isinstance(settings, dict)])


def _lengthen(data: dict[str, Any]) -> bool:
    """The mesh in its long form, in place; False where it was changed so that it has none."""
    try:
        plan = make_plan(MeshSpec.model_validate(data), registry())
    except (MeshError, ValueError):
        return False
    long = plan.spec.dump()
    data.clear()
    data.update(long)
    return True


def _layers(data: dict[str, Any]) -> list[str]:
    """Layers that the file names somewhere."""
    named = [place for place in _leaves(data) if place.path.rpartition(".")[2] in ("exit", "tap", "of", "to")]
    return [place.value for place in named if isinstance(place.value, str)]
