"""A toy writer: what it writes depends on how far its agent has trained, on chance, and on how often it was asked."""

from __future__ import annotations

import torch

SIZE = 16


def mesh(refresh, placement, data, **train):
    """Agent `a` learns from labels and writes; `b` and `c` read its samples, with its answers and with its labels."""
    settings = {"epochs": 2, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}, **train}
    return {
        "data": data,
        "agents": {name: {"model": {"mlp": {"hidden": [6]}}} for name in "abc"},
        "streams": {"made": {"generated_by": "a", "refresh": refresh}},
        "flows": [
            {"from": "labels", "to": ["a", "b"], "objective": "ce"},
            {"from": "a", "to": "b", "objective": "kl", "stream": "made", "refresh": "step"},
            {"from": "labels", "to": "c", "objective": "ce", "stream": "made"},
        ],
        "train": settings,
        "placement": placement,
    }


def frozen(refresh, placement, data):
    """Agent `a` does not train: it writes, and teaches `b`."""
    fields = mesh(refresh, placement, data)
    del fields["agents"]["c"]
    fields["agents"]["a"]["update"] = "frozen"
    fields["flows"] = [{"from": "labels", "to": "b", "objective": "ce"}, fields["flows"][1]]
    return fields


class Near:
    """Noise around the rows of its agent's first layer, with the agent's own answers as labels."""

    def __init__(self):
        self.count = 0

    def write(self, step, agent):
        """Ask the agent, which is in eval mode."""
        weight = next(agent.module.parameters())
        self.count += 1
        x = torch.randn(SIZE, weight.shape[1]) + 3 * weight[torch.randint(len(weight), (SIZE,))] * self.count
        return x, agent.module(x).argmax(1), torch.arange(SIZE) + SIZE * step

    def state_dict(self):
        return {"count": torch.tensor(self.count)}

    def load_state_dict(self, state):
        self.count = int(state["count"])
