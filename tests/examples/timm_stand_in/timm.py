"""In timm's place where that is not installed: the two functions that the cookbook calls, and one small network.

It stands among the plugins, so that it reaches Ray's workers as they do; hence the hook.
"""

from __future__ import annotations

import kdmesh

NAME = "resnet10t"


def is_model(name):
    return name == NAME


def create_model(name, *, pretrained, num_classes, in_chans, zero_init_last=True, width=4):
    from torch import nn

    assert name == NAME and not pretrained
    norm = nn.BatchNorm2d(width)
    if zero_init_last:
        nn.init.zeros_(norm.weight)  # as timm has it where a block ends
    body = nn.Conv2d(in_chans, width, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(width, num_classes))


@kdmesh.hookimpl
def kdmesh_host_lost():
    """Nothing to do."""
