"""A host takes its next call and no other, and none behind one that failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.backends.sequence import Fence, Missing, Refused, Sequencer
from kdmesh.errors import RunFailed


def tell(fence, sequence_number, made=None, error=None):
    """Make a call that notes its number, or raises."""
    with fence.admit(sequence_number):
        if error is not None:
            raise error
        if made is not None:
            made.append(sequence_number)


def test_each_host_has_numbers_of_its_own_and_each_incarnation_begins_anew():
    sequencer = Sequencer()
    assert sequencer.renew() == 1
    assert [sequencer.take(host) for host in "aab"] == [(1, 1), (1, 2), (1, 1)]
    assert sequencer.renew() == 2
    assert [sequencer.take(host) for host in "ab"] == [(2, 1), (2, 1)]


def test_calls_in_order_are_made():
    sequencer, made = Sequencer(), []
    fence = Fence("a", sequencer.renew())
    for _ in range(3):
        tell(fence, sequencer.take("a"), made)
    assert made == [(1, 1), (1, 2), (1, 3)] and fence.cause is None


def test_a_call_of_another_incarnation_is_refused_and_changes_nothing():
    fence, made = Fence("a", 2), []
    for stale in (1, 3):
        with pytest.raises(Refused, match=f"a refuses a call of incarnation {stale}: this is incarnation 2") as caught:
            tell(fence, (stale, 1), made)
        assert not isinstance(caught.value, Missing) and caught.value.where == "placement.a"
    tell(fence, (2, 1), made)
    assert made == [(2, 1)]


def test_behind_a_call_that_raised_all_are_refused_with_its_error():
    fence, made, first = Fence("a", 1), [], KeyError("first")
    tell(fence, (1, 1), made)
    with pytest.raises(KeyError):
        tell(fence, (1, 2), error=first)
    for number in (2, 3, 4):
        with pytest.raises(KeyError) as caught:
            tell(fence, (1, number), made, ValueError("second"))
        assert caught.value is first
    assert made == [(1, 1)] and fence.cause is first


def test_behind_a_call_whose_input_failed_all_are_refused():
    fence, made = Fence("a", 1), []
    tell(fence, (1, 1), made)
    for number in (3, 4):  # the second is never made: what it should have read is an error
        with pytest.raises(Missing, match=rf"refuses call {number}: the next one is call 2\b"):
            tell(fence, (1, number), made)
    assert made == [(1, 1)] and fence.cause is None  # it is not this host's own


def test_refusals_are_failures_of_the_run_not_of_the_input():
    assert issubclass(Refused, RunFailed) and Refused("x").exit_code == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.booleans())))
def test_what_is_made_is_a_beginning_of_the_calls_of_one_incarnation(calls):
    fence, made, failed = Fence("a", 2), [], False
    for incarnation, number, fails in calls:
        expected = incarnation == 2 and number == len(made) + 1 and not failed
        try:
            tell(fence, (incarnation, number), made, ZeroDivisionError() if fails else None)
            assert expected and not fails
        except (Refused, ZeroDivisionError) as error:
            assert not expected or (fails and isinstance(error, ZeroDivisionError))
            failed = failed or (expected and fails)
    assert made == [(2, number) for number in range(1, len(made) + 1)]
