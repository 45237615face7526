"""A host takes its next call and no other, and none behind one that failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.backends.sequence import Gate, Missing, Refused, Tickets
from kdmesh.errors import RunFailed


def tell(gate, ticket, made=None, error=None):
    """Make a call that notes its ticket, or raises."""
    with gate.admit(ticket):
        if error is not None:
            raise error
        if made is not None:
            made.append(ticket)


def test_each_host_has_numbers_of_its_own_and_each_incarnation_begins_anew():
    tickets = Tickets()
    assert tickets.renew() == 1
    assert [tickets.take(host) for host in "aab"] == [(1, 1), (1, 2), (1, 1)]
    assert tickets.renew() == 2
    assert [tickets.take(host) for host in "ab"] == [(2, 1), (2, 1)]


def test_calls_in_order_are_made():
    tickets, made = Tickets(), []
    gate = Gate("a", tickets.renew())
    for _ in range(3):
        tell(gate, tickets.take("a"), made)
    assert made == [(1, 1), (1, 2), (1, 3)] and gate.cause is None


def test_a_call_of_another_incarnation_is_refused_and_changes_nothing():
    gate, made = Gate("a", 2), []
    for stale in (1, 3):
        with pytest.raises(Refused, match=f"a refuses a call of incarnation {stale}: this is incarnation 2") as caught:
            tell(gate, (stale, 1), made)
        assert not isinstance(caught.value, Missing) and caught.value.where == "placement.a"
    tell(gate, (2, 1), made)
    assert made == [(2, 1)]


def test_behind_a_call_that_raised_all_are_refused_with_its_error():
    gate, made, first = Gate("a", 1), [], KeyError("first")
    tell(gate, (1, 1), made)
    with pytest.raises(KeyError):
        tell(gate, (1, 2), error=first)
    for number in (2, 3, 4):
        with pytest.raises(KeyError) as caught:
            tell(gate, (1, number), made, ValueError("second"))
        assert caught.value is first
    assert made == [(1, 1)] and gate.cause is first


def test_behind_a_call_whose_input_failed_all_are_refused():
    gate, made = Gate("a", 1), []
    tell(gate, (1, 1), made)
    for number in (3, 4):  # the second is never made: what it should have read is an error
        with pytest.raises(Missing, match=rf"refuses call {number}: the next one is call 2\b"):
            tell(gate, (1, number), made)
    assert made == [(1, 1)] and gate.cause is None  # it is not this host's own


def test_refusals_are_failures_of_the_run_not_of_the_input():
    assert issubclass(Refused, RunFailed) and Refused("x").exit_code == 1


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.booleans())))
def test_what_is_made_is_a_beginning_of_the_calls_of_one_incarnation(calls):
    gate, made, failed = Gate("a", 2), [], False
    for incarnation, number, fails in calls:
        expected = incarnation == 2 and number == len(made) + 1 and not failed
        try:
            tell(gate, (incarnation, number), made, ZeroDivisionError() if fails else None)
            assert expected and not fails
        except (Refused, ZeroDivisionError) as error:
            assert not expected or (fails and isinstance(error, ZeroDivisionError))
            failed = failed or (expected and fails)
    assert made == [(2, number) for number in range(1, len(made) + 1)]
