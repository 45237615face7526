"""The interface of a gate: the engine calls nothing else, and it works in anyone's own loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Decides, in each step, whether a flow adds its loss, or whether an agent is updated.

    Or, of a stream that an agent writes, whether its batch is written, or else of given samples (`mix`). There it is
    asked before there is a batch, where a period of the stream begins, of all steps of that period, one after the
    other; facts are those of the agent that writes.

    ``forward(**facts) -> bool | Tensor``

    ``facts``: what its offer ``needs``, by name, and nothing else; tensors of one batch of B rows, on the agent's
    device, without gradient:

    - ``own [B, C]``: the agent's own logits; ``other [B, C]``: those of the agent that the mesh names with `of`.
    - ``signal``: what the flow carries, ``[B, C]``, ``[B, ...]`` of a layer, or labels ``[B]`` (int64).
    - ``confidence [B]``: the largest probability in each row of the signal, at T = 1 for logits.
    - ``losses [B]``: the flow's objective for each row, ``l_i``, of the own signal, or of ``other`` where the mesh
      names one; 0 for rows that the flow does not compare.
    - ``counted [B]`` (bool): whether the flow compares the row. It does not where the agent does not know the label's
      class, where the source abstains, or where nothing is published of the sample.
    - ``labels``, of the samples (``[B]`` int64 of classes); ``ids [B]`` (int64), the samples' stable ids.
    - ``step``, ``epoch``, ``round``: plain ints. ``metrics``: the agent's figures on validation, a dict of floats,
      empty before the first evaluation. When that was: ``measured_step`` and ``measured_epoch``, as ``step`` and
      ``epoch`` count (in another lesson, of this one what had been done), and ``measured_age``, the batches of this
      lesson since: 0 in the first step that sees new figures. Plain ints, None before.
    - ``agreement``: a float, that of the sources of the consensus that the agent sends to or reads, also through
      another; where there are several, of the one published to last in the rounds. None before.

    It returns a bool, or a tensor of one bool: False shuts the flow for this step; the agent's update where it stands
    on an agent, and also where it stands on flows and leaves no loss. What is shut is skipped: weights, optimiser,
    schedule, counts of updates and averages that follow stay as they are, to the bit. (The forward was made, so that
    running statistics of norms have moved, as they have in a loop that takes no step.)

    Where its offer says ``rows`` it returns factors ``[B]``, of floating point, finite and 0 or more: the flow's loss
    is then ``sum_i f_i l_i / B``. Each such gate says how its factors are normalised. All of them 0 shut the flow.

    It is asked at most once in a step, on the agent's host, whether the mesh is spread over hosts or not. It is not
    asked while the gate of the agent itself is shut (one on a flow), while nothing is known of the agent that `of`
    names, which shuts it, and where there is no batch or signal; a run counts the steps in which it was asked.

    It must not depend on anything else: state lives in buffers (`state_dict`), which checkpoints hold and restore
    exactly; random numbers come from torch's generator, which is seeded by gate and step just before it is called. It
    has no trained weights, and may not work in place.
    """

    def setup(self, outputs: torch.Size) -> None:
        """Make what depends on the mesh. Called once, before training, seeded.

        ``outputs``: the shape of the agent's logits without the batch axis.
        """

    def forward(self, *args: Any, **facts: Any) -> bool | Tensor:
        """Decide about one step."""
        raise NotImplementedError(f"{type(self).__name__} must decide")  # the one abstract method
