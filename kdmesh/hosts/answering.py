"""One answer op of a step: what an agent says of what its readers ask, of the forwards of both, as a plain call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.graph.steps import ANSWERS, Op
from kdmesh.hosts import build
from kdmesh.hosts.asking import answerer
from kdmesh.hosts.step import frozen_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.hosts.inputs import Inputs
    from kdmesh.hosts.step import StepContext

FORWARDS = {answer: forward for forward, answer in ANSWERS.items()}


def answer_op(inputs: Inputs, op: Op) -> Callable[[StepContext], None]:
    """Answer all that ask an agent about one of its forwards: it gives a signal for each, by the output's name.

    The logits are those from before anyone was updated, though an update may stand before the answer.
    """
    host, said = inputs.host, op._replace(kind=FORWARDS[op.kind])
    edges = [edge for edge in inputs.plan.edges if edge.asked and inputs.carrier(edge) == op]
    answers = [
        (edge.output, edge.question, Op("f", edge.target, edge.stream), answerer(host, edge, build.columns(host, edge)))
        for edge in {edge.output: edge for edge in edges}.values()
    ]
    threads = host.agents[op.node].weights.settings.threads

    def answer(context: StepContext) -> None:
        value = context.values.get(said)
        if value is None:
            return
        host.threads(threads)
        logits, found = frozen_copy(value)[0], {}
        for output, question, reader, make in answers:
            asked = context.values.get(reader)
            if asked is not None:
                ids = asked[1][question]
                with torch.no_grad():
                    found[output] = make(logits, ids if ids.device == logits.device else ids.to(logits.device))
        context.values[op] = None, found

    return answer
