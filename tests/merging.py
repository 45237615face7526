"""Meshes through which weights flow, for tests inline and on Ray."""

from __future__ import annotations

import torch
from torch import nn


class Normed(nn.Module):
    """Has running statistics, a count of batches, and a mask."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, classes)
        )
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layers(x)
        return made


MODEL = {"merging:Normed": {"inputs": 8, "classes": 3}}
PARTIES = ["party[0]", "party[1]", "party[2]"]


def fedavg(placement, data, rounds=3, weight="samples", **train):
    """Three parties of unlike size, and a server that averages their weights in rounds."""
    stream = {"stream": "own"} if weight == "samples" else {}
    return {
        "data": data,
        "streams": {"own": {"of": "train", "shards": {"by": "class", "classes": 1, "of": ["party[*]"]}}},
        "agents": {
            "server": {"model": MODEL, "update": "merged"},
            "party": {"model": MODEL, "init_of": "server", "count": 3},
        },
        "flows": [
            {"from": "labels", "to": ["party[*]"], "objective": "ce", "stream": "own"},
            {"from": ["party[*]"], "to": "server", "as": "weights", "refresh": "round", "weight": weight, **stream},
            {"from": "server", "to": ["party[*]"], "as": "weights", "refresh": "round"},
        ],
        "program": [
            {
                "of": ["server", "party[*]"],
                "repeat": rounds,
                "do": [{"train": ["party[*]"], "epochs": 2}, {"publish": ["party[*]"]}, {"publish": "server"}],
            }
        ],
        "train": {"batch_size": 8, "optimizer": {"sgd": {"lr": 0.1}}, **train},
        "placement": placement,
    }


def swa(placement, data, refresh="epoch", rule="running_average", **train):
    """An agent, and the average of its weights over all periods."""
    return {
        "data": data,
        "agents": {"net": {"model": MODEL}, "mean": {"model": MODEL, "init_of": "net", "update": "merged"}},
        "consensus": {"over": rule},
        "flows": [
            {"from": "labels", "to": "net", "objective": "ce"},
            {"from": "net", "to": "over", "as": "weights", "refresh": refresh},
            {"from": "over", "to": "mean", "as": "weights"},
        ],
        "train": {"epochs": 4, "batch_size": 32, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, **train},
        "placement": placement,
    }


def gossip(placement, data):
    """Four agents in a ring; each takes the average of its neighbours and itself every fourth update."""
    names = list("abcd")
    around = [(name, names[number - 1]) for number, name in enumerate(names)]
    flows = [{"from": "labels", "to": names, "objective": "ce"}]
    for name, other in around:
        pair = [(name, 2.0), (other, 1.0)]
        flows += [{"from": n, "to": name, "as": "weights", "weight": w, "refresh": "4 steps"} for n, w in pair]
    return {
        "data": data,
        "agents": {name: {"model": MODEL} for name in names},
        "flows": flows,
        "train": {"epochs": 3, "batch_size": 32, "optimizer": {"adamw": {"lr": 0.01}}},
        "placement": placement,
    }
