from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.budgets.evaluation import Crossing, Watched, evaluate, history, level

D = Decimal


def fired(value, *watched):
    return [crossing.threshold for crossing in evaluate(D(value), watched).fired]


def resolved(value, *watched):
    return [crossing.threshold for crossing in evaluate(D(value), watched).resolved]


@pytest.mark.parametrize(
    ("value", "fires"),
    [("79.999999999999", False), ("80", True), ("80.000000000001", True)],
)
def test_a_threshold_fires_at_its_level_and_above(value, fires):
    assert bool(fired(value, Watched(1, D(80)))) is fires


def test_what_has_fired_does_not_fire_again():
    assert fired(1000, Watched(1, D(80), fired=True)) == []


def test_several_at_once_are_all_recorded_the_highest_first():
    watched = [Watched(1, D(50)), Watched(3, D(100)), Watched(2, D(80)), Watched(4, D(120))]

    assert fired(105, *watched) == [3, 2, 1]


@pytest.mark.parametrize(("value", "resolves"), [("100", False), ("98", False), ("97.999999999999", True)])
def test_a_threshold_resolves_only_clearly_below_its_level(value, resolves):
    assert bool(resolved(value, Watched(1, D(100), fired=True))) is resolves


def test_what_never_fired_does_not_resolve():
    assert resolved(0, Watched(1, D(100))) == []


def test_a_raise_resolves_and_the_next_epoch_may_fire_again():
    epoch, was_fired = history([(0, "fired")])
    after_raise = Watched(1, level(D(2000), percent=D(80)), epoch, was_fired)
    assert evaluate(D(850), [after_raise]).resolved == (Crossing(1, D(1600), 0, "resolved"),)

    epoch, was_fired = history([(0, "fired"), (0, "resolved")])
    again = Watched(1, D(1600), epoch, was_fired)
    assert evaluate(D(1600), [again]).fired == (Crossing(1, D(1600), 1, "fired"),)


def test_a_raise_leaves_the_lower_thresholds_that_are_still_reached_alone():
    half, most = Watched(1, D(60), fired=True), Watched(2, D(96), fired=True)

    assert resolved(85, half, most) == [2]
    assert fired(85, half, most) == []


def test_a_level_is_a_percent_of_the_limit_or_an_amount():
    assert level(D(2000), percent=D("33.333")) == D("666.66")
    assert level(D(2000), amount=D(1900)) == 1900
    with pytest.raises(ValueError, match="percent or an amount"):
        level(D(2000))


def test_history_takes_alerts_in_any_order():
    assert history([]) == (0, False)
    assert history([(1, "fired"), (0, "resolved"), (0, "fired")]) == (1, True)


@given(st.lists(st.decimals(0, 200, places=2), max_size=30))
def test_whatever_the_value_does_alerts_alternate_and_never_repeat(values):
    alerts = []
    for value in values:
        epoch, was_fired = history(alerts)
        found = evaluate(value, [Watched(1, D(100), epoch, was_fired)])
        alerts += [(crossing.epoch, crossing.direction) for crossing in (*found.fired, *found.resolved)]

    assert len(alerts) == len(set(alerts))
    assert [direction for _, direction in alerts] == (["fired", "resolved"] * len(alerts))[: len(alerts)]
