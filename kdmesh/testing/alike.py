"""Checks that things of nearly all kinds keep: what they share, draw, change, and need of the process they are in."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves

from kdmesh.hosts import guard
from kdmesh.offers import Offer
from kdmesh.testing.base import Contract, refuse_other_draws
from kdmesh.testing.device import There, back, other_device
from kdmesh.testing.elsewhere import elsewhere

At = Callable[[Any], Any]
NUMBERS = (0, 1, 2)


def here(value: Any) -> Any:
    """A value where it is."""
    return value


class Alike(Contract):
    """A contract of things that can be made and asked, which is how these checks learn what they answer.

    ``drawn``: answers are random on purpose, drawn from torch's default generator, which the engine seeds; checks that
    compare answers to unlike questions then leave it out. ``elsewhere``, ``device``: whether it is asked in other
    processes, and on another device. ``answers_there``: whether its answers are to be on that device.
    """

    __test__ = False
    drawn: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = True
    device: ClassVar[bool] = True
    answers_there: ClassVar[bool] = True

    def made(self, offer: Any, settings: dict[str, Any]) -> Any:
        """One, as the engine makes it."""
        raise NotImplementedError(f"{type(self).__name__} makes nothing")  # each kind has its own

    def asked(self, offer: Any, thing: Any, number: int, at: At = here) -> Any:
        """What it answers, in any lists and dicts, to made-up values that go with a number, 0, 1 or 2.

        ``at`` is called with every tensor, and module, that it is given, last of all; given is what that returns.
        """
        raise NotImplementedError(f"{type(self).__name__} asks nothing")  # each kind has its own

    def ask(self, offer: Any, thing: Any, number: int, at: At = here, seed: int = 1) -> Any:
        """What it answers, with the default generators seeded; these are put back."""
        with guard.seeded(seed):
            return plain(self.asked(offer, thing, number, at))

    def make(self, offer: Any, settings: dict[str, Any], seed: int = 0) -> Any:
        """One, made with the default generators seeded."""
        with guard.seeded(seed):
            return self.made(offer, settings)

    def there(self, offer: Any, settings: dict[str, Any]) -> list[Any]:
        """What new ones answer, asked in another order than here."""
        found = {number: self.ask(offer, self.make(offer, settings), number) for number in reversed(NUMBERS)}
        return [found[number] for number in NUMBERS]

    def other_settings(self, offer: Offer, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Further valid settings: each has another number or switch."""
        valid = offer.config.model_validate(settings)
        for name in type(valid).model_fields:
            value = getattr(valid, name)
            if isinstance(value, bool):
                others: list[Any] = [not value]
            elif isinstance(value, int | float):
                others = [value + 1, value * 2 or 1, value / 2] if isinstance(value, float) else [value + 1, value - 1]
            else:
                continue
            for other in others:
                with suppress(Exception):
                    offer.config.model_validate({**settings, name: other})
                    yield {**settings, name: other}
                    break

    def test_several_share_nothing(self, offer: Any, settings: dict[str, Any]) -> None:
        """What others are made with, asked and have learned changes nothing of it: nothing is kept in a class."""
        expected = self.ask(offer, self.make(offer, settings), 0)
        one = self.make(offer, settings)
        for number, given in enumerate([settings, *self.other_settings(offer, settings)]):
            with suppress(Exception) if number else _raising():  # made-up settings may not fit
                other = self.make(offer, given, seed=number)
                for question in (1, 2, 1):
                    self.ask(offer, other, question)
        found = self.ask(offer, one, 0)
        assert same(found, expected), f"others of its kind change what it answers{difference(found, expected)}"
        again = self.ask(offer, self.make(offer, settings), 0)
        assert same(again, expected), f"a new one answers other than the first one did{difference(again, expected)}"

    def test_another_process_gives_the_same(
        self, offer: Any, settings: dict[str, Any], request: pytest.FixtureRequest
    ) -> None:
        """It answers alike in processes where sets of texts have another order, and where nothing was asked before."""
        if not self.elsewhere:
            pytest.skip(f"{type(self).__name__} says `elsewhere = False`")
        ours = [self.ask(offer, self.make(offer, settings), number) for number in NUMBERS]
        for theirs in elsewhere(request.config).ask(self, offer, settings):
            assert same(theirs, ours), f"another process gives others (a set? a cache?){difference(theirs, ours)}"

    def test_copies_go_on_alike(self, offer: Any, settings: dict[str, Any]) -> None:
        """A copy, and one that was sent to another process, answer as it does; nothing in it cannot be sent."""
        for given in [settings, *list(self.other_settings(offer, settings))[:1]]:
            try:
                thing = self.make(offer, given)
                self.ask(offer, thing, 1)
            except Exception:
                if given is settings:
                    raise
                continue  # made-up settings may not fit
            self._refuse_other_copies(offer, thing)

    def _refuse_other_copies(self, offer: Any, thing: Any) -> None:
        copies = {}
        try:
            copies["a copy"] = copy.deepcopy(thing)
            if not local(thing):
                copies["what is unpickled"] = pickle.loads(pickle.dumps(thing))
        except Exception as error:
            raise AssertionError(f"it cannot be copied and sent: {type(error).__name__}: {error}") from None
        expected = self.ask(offer, thing, 0)
        for name, other in copies.items():
            found = self.ask(offer, other, 0)
            assert same(found, expected), f"{name} answers other than it{difference(found, expected)}"

    def test_it_leaves_alone_what_it_is_given(self, offer: Any, settings: dict[str, Any]) -> None:
        """Nothing that it is given is changed in place, not even to the same values: others read it too."""
        kept: list[tuple[Tensor, Tensor, int]] = []

        def keep(value: Any) -> Any:
            if isinstance(value, Tensor):
                kept.append((value, value.detach().clone(), value._version))
            return value

        thing = self.make(offer, settings)
        for number in NUMBERS:
            self.ask(offer, thing, number, keep)
        for given, before, version in kept:
            changed = not torch.equal(given.detach().nan_to_num(), before.nan_to_num()) or given._version != version
            assert not changed, f"it changes in place what it is given: {guard.told(before)}"

    def test_it_draws_from_torch_alone(self, offer: Any, settings: dict[str, Any]) -> None:
        """Random numbers come from torch's default generator, which the engine seeds; none is seeded by it."""
        states = []
        with torch.random.fork_rng(devices=()):
            thing = self.made(offer, settings)  # what a library draws as it is imported is no draw of a step
            for number in NUMBERS:
                self.asked(offer, thing, number)
        with refuse_other_draws(offer.name):
            for seed in (1, 2):
                with torch.random.fork_rng(devices=()):
                    torch.manual_seed(seed)
                    thing = self.made(offer, settings)
                    states.append(torch.get_rng_state())
                    torch.manual_seed(seed)
                    for number in NUMBERS:
                        self.asked(offer, thing, number)
                    states.append(torch.get_rng_state())
        again = torch.equal(states[0], states[2]) or torch.equal(states[1], states[3])
        assert not again, "it seeds torch's default generator, on which all else in the step depends"

    def test_it_works_on_another_device(self, offer: Any, settings: dict[str, Any]) -> None:
        """On another device it answers the same, there: what it makes beside its values is made where they are."""
        if not self.device:
            pytest.skip(f"{type(self).__name__} says `device = False`")
        for number in NUMBERS:
            expected = self.ask(offer, self.make(offer, settings), number)
            thing = self.make(offer, settings)
            with other_device() as there:
                moved = there(thing) if isinstance(thing, nn.Module) else thing
                found = self.ask(offer, moved, number, there)
            leaves = tree_leaves(found) if self.answers_there else ()
            away = [guard.told(one) for one in leaves if isinstance(one, Tensor) and not isinstance(one, There)]
            assert not away, f"it gives {away[0]} on the CPU where its values are on another device"
            assert close(back(found), expected), f"it answers otherwise there{difference(back(found), expected)}"

    def test_temperature_is_heeded(self, offer: Any, settings: dict[str, Any]) -> None:
        """Where it has a setting `temperature`, another one gives other answers."""
        if "temperature" not in offer.config.model_fields:
            return
        one, two = (self.ask(offer, self.make(offer, {**settings, "temperature": value}), 0) for value in (1.5, 3.0))
        assert not same(one, two), "its answers are the same at every temperature"


@contextmanager
def _raising() -> Iterator[None]:
    yield


def local(thing: Any) -> bool:
    """Whether its own class stands in a function, as one may that keeps torch out of a module: Python pickles none."""
    several = thing.values() if isinstance(thing, nn.ModuleDict) else thing if isinstance(thing, list) else [thing]
    return any("<locals>" in type(one).__qualname__ for one in several)


def worded(words: str) -> Callable[[str], str]:
    """A message for ``torch.testing.assert_close``: these words, then its own."""
    return lambda said: f"{words} {said}"


def plain(answer: Any) -> Any:
    """An answer without graphs, whose tensors stay as they are: what is asked next may work on them."""
    flat, spec = tree_flatten(answer)
    return spec.unflatten([one.detach().clone() if isinstance(one, Tensor) else one for one in flat])


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal to the bit; NaN is NaN."""
    return _alike(one, other, lambda a, b: torch.equal(_known(a), _known(b)))


def close(one: Any, other: Any, atol: float = 1e-5) -> bool:
    """Whether two answers are equal but for rounding."""
    return _alike(one, other, lambda a, b: torch.allclose(_known(a.double()), _known(b.double()), rtol=1e-4, atol=atol))


def _alike(one: Any, other: Any, equal: Callable[[Tensor, Tensor], bool]) -> bool:
    ours, theirs = tree_flatten(one), tree_flatten(other)
    if len(ours[0]) != len(theirs[0]) or ours[1] != theirs[1]:
        return False
    for a, b in zip(ours[0], theirs[0], strict=True):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape != b.shape or a.dtype != b.dtype or not equal(a, b):
                return False
        elif isinstance(a, float) and isinstance(b, float):
            if not equal(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)):
                return False
        elif a != b:
            return False
    return True


def _known(value: Tensor) -> Tensor:
    return value.nan_to_num(nan=123.25) if value.is_floating_point() else value


def difference(one: Any, other: Any) -> str:
    """Where two answers differ first, in words."""
    for a, b in zip(tree_leaves(one), tree_leaves(other), strict=False):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                return f": {guard.told(a)} in place of {guard.told(b)}"
            if not torch.equal(_known(a), _known(b)):
                where = (_known(a) != _known(b)).flatten().int().argmax()
                return f": {a.flatten()[where].item()} in place of {b.flatten()[where].item()}"
        elif a != b and not (isinstance(a, float) and isinstance(b, float) and a != a and b != b):
            return f": {a!r} in place of {b!r}"[:200]
    return ""
