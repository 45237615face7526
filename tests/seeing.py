"""Meshes in which agents see what others say of a sample, for tests inline and on Ray."""

from __future__ import annotations

SIZES = {"batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}}


def gkt(placement, data, rounds=3):
    """Two clients with a feature extractor each, and a server on their features, all on one stream (FedGKT)."""
    clients, servers = ["one", "two"], ["on_one", "on_two"]
    flows = [{"from": "labels", "to": [*clients, *servers], "objective": "ce"}]
    for client, server in zip(clients, servers, strict=True):
        flows += [
            {"from": client, "to": server, "as": "input", "signal": "hidden", "tap": "layers.0", "refresh": "round"},
            {"from": client, "to": server, "objective": {"kl": {"temperature": 3}}, "refresh": "round"},
            {"from": server, "to": client, "objective": {"kl": {"temperature": 3}}, "refresh": "round"},
        ]
    return {
        "data": data,
        "agents": {
            "one": {"model": {"mlp": {"hidden": [6]}}},
            "two": {"model": {"mlp": {"hidden": [6]}}},
            "on_one": {"model": {"mlp": {"hidden": [12, 8]}}},
            "on_two": {"weights_of": "on_one"},
        },
        "flows": flows,
        "program": [
            {
                "of": [*clients, *servers],
                "repeat": rounds,
                "do": [
                    {"train": clients, "epochs": 1},
                    {"publish": clients},
                    {"train": servers, "epochs": 2},
                    {"publish": servers},
                ],
            }
        ],
        "train": SIZES,
        "placement": placement,
    }


def split(placement, data, detach=False, epochs=2):
    """A network in two halves: the second one's gradient passes into the first."""
    return {
        "data": data,
        "agents": {"body": {"model": {"mlp": {"hidden": [6]}}}, "head": {"model": {"mlp": {"hidden": [5]}}}},
        "flows": [
            {"from": "labels", "to": ["body", "head"], "objective": "ce"},
            {
                "from": "body", "to": "head", "as": "input", "signal": "hidden", "tap": "layers.0", "refresh": "step",
                "detach": detach,
            },
        ],
        "train": {**SIZES, "epochs": epochs},
        "placement": placement,
    }  # fmt: skip
