"""What a model of transformers really does, found by asking it: no list of architectures could keep up."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = 6  # tokens of a trial


@contextmanager
def inference(net: nn.Module) -> Iterator[None]:
    """Evaluation without gradient, and every module's mode as it was."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def is_causal(net: Any) -> bool:
    """Whether no output of a language model sees the tokens that it is to predict."""
    return not sees_later(net, use_cache=False)


def sees_later(net: Any, **more: Any) -> bool:
    """Whether what a network gives of a token depends on tokens after it."""
    ids = _some(net)
    other = ids.clone()
    other[:, LENGTH // 2 :] = ids[:, LENGTH // 2 :].flip(1)
    with inference(net):
        one, two = (net(input_ids=x, **more)[0] for x in (ids, other))
    return not torch.equal(one[:, : LENGTH // 2], two[:, : LENGTH // 2])


def is_projection(net: Any) -> bool:
    """Whether the logits are what a linear head gives, and nothing is done to them after it.

    Some architectures scale or cap them, so the head is made to answer with known large numbers: they must come out
    as they are. A network without weights, on the `meta` device, is asked as well, without its layers: the numbers are
    real. One that cannot run so is taken for one that does as most do.
    """
    net = net.get_base_model() if hasattr(net, "get_base_model") else net  # adapters do nothing to logits
    head = net.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = _some(net)
    device = "cpu" if ids.is_meta else ids.device
    said = torch.linspace(-300, 300, head.out_features, dtype=head.weight.dtype, device=device)
    handle = head.register_forward_hook(lambda _module, args, _value: said.expand(*args[0].shape[:-1], -1))
    try:
        with inference(net), _without_layers(net, head.in_features) if ids.is_meta else nullcontext():
            more = {"decoder_input_ids": ids} if net.config.is_encoder_decoder else {}
            logits = net(input_ids=ids, use_cache=False, **more).logits
    except Exception:  # each architecture fails there in its own way
        if not ids.is_meta:
            raise
        return True
    finally:
        handle.remove()
    return torch.equal(logits, said.expand_as(logits))


@contextmanager
def _without_layers(net: Any, width: int) -> Iterator[None]:
    """A network whose base gives rows of zeros: on the `meta` device, many cannot run their masks."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    base = vars(net.base_model)
    base["forward"] = lambda *_args, **_more: BaseModelOutputWithPast(torch.zeros(1, LENGTH, width, device="meta"))
    try:
        yield
    finally:
        del base["forward"]


def keeps_apart(net: Any) -> bool:
    """Whether samples packed into one row do not see each other, and stand at their own positions.

    What the first sample says must not move a bit of the second's output, which must be the one it has alone.
    """
    one, two = _some(net), _some(net).flip(1)
    at = torch.arange(LENGTH, device=one.device)[None]
    positions = torch.cat([at, at], 1)
    try:
        with inference(net):
            first, second = (
                net(input_ids=torch.cat([x, two], 1), position_ids=positions, use_cache=False).logits[:, LENGTH:]
                for x in (one, two)
            )
            alone = net(input_ids=two, use_cache=False).logits
    except TypeError:  # takes no positions
        return False
    near = 1e-4 if alone.dtype == torch.float32 else 5e-2  # rounding of that type, on a scale of the largest logit
    return torch.equal(first, second) and bool((first - alone).abs().max() <= near * alone.abs().max())


def takes_types(net: Any) -> bool:
    """Whether a network can be told which of two texts a token is of."""
    return getattr(net.config, "type_vocab_size", 0) > 1


def unmasked(net: nn.Module) -> None:
    """Keep a causal model from warning that it is given no mask: its padding stands where no output can see it."""
    for module in net.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            vars(module)["warn_if_padding_and_no_attention_mask"] = _silent


def recompute(net: Any) -> None:
    """Let a network recompute in the backward pass. ValueError where it cannot."""
    enable = getattr(net, "activation_checkpointing_enable", None) or net.gradient_checkpointing_enable  # its old name
    enable({"use_reentrant": False})
    net.disable_input_require_grads()  # which only the other kind needs


def _silent(*_args: Any, **_more: Any) -> None:
    """Say nothing."""


def _some(net: Any) -> Tensor:
    """A row of tokens of which each differs from its mirror image."""
    weight = net.get_input_embeddings().weight
    return torch.arange(weight.shape[0] - LENGTH, weight.shape[0], device=weight.device)[None]
