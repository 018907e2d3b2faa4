"""What changed from one wording of a plan to another, in sentences. No database, no clock."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from decimal import Decimal
from typing import Final

from billing.money import counted, price
from billing.pricing.schemes import Row, Terms, figure
from billing.pricing.spec import CreditSpec, OverageSpec, PriceSpec, VersionSpec, terms_of
from billing.pricing.where import format_where
from billing.pricing.wording import row_in_words

_NONE: Final = "none"


def changes(old: VersionSpec, new: VersionSpec, currency: str) -> list[str]:
    """One sentence for each thing that differs, such as "input, model = large-2: $2.50 each -> $2.00 each"."""
    return [
        *_terms(old, new, currency),
        *_listed(old.credits, new.credits, "Credits", lambda credit: (credit.unit, credit.every), credit_in_words),
        *_listed(
            old.overage,
            new.overage,
            "Beyond the grants",
            lambda term: term.unit,
            lambda term: rate_in_words(term, currency),
        ),
        *_prices(old.prices, new.prices),
    ]


def _terms(old: VersionSpec, new: VersionSpec, currency: str) -> Iterator[str]:
    said: dict[str, Callable[[VersionSpec], str]] = {
        "Billed": interval_in_words,
        "Base fee": lambda spec: fee_in_words(spec, currency),
        "Trial": trial_in_words,
        "Minimum spend": lambda spec: minimum_in_words(spec, currency),
        "Usage beyond the grants": lambda spec: "invoiced" if spec.postpaid else "refused unless it is prepaid",
    }
    for name, words in said.items():
        yield from _changed(name, words(old), words(new))


def interval_in_words(spec: VersionSpec) -> str:
    """For instance "every month", "every 3 months"."""
    if spec.interval_count == 1:
        return f"every {spec.interval}"
    return f"every {spec.interval_count} {spec.interval}s"


def fee_in_words(spec: VersionSpec, currency: str) -> str:
    """For instance "$20.00, in advance"."""
    return f"{price(spec.base_fee, currency)}, in {spec.base_fee_timing}" if spec.base_fee else _NONE


def trial_in_words(spec: VersionSpec) -> str:
    """For instance "14 days"."""
    return f"{spec.trial_days} {counted('days', Decimal(spec.trial_days))}" if spec.trial_days else _NONE


def credit_in_words(credit: CreditSpec) -> str:
    """For instance "1,000 credits each month, up to 200 roll over"."""
    every = "each month" if credit.every == "month" else "each billing period"
    rolling = f", up to {figure(credit.rollover_max)} roll over" if credit.rollover_max else ""
    return (
        f"{figure(credit.amount)} {counted(credit.unit, credit.amount)} {every}{rolling} (priority {credit.priority})"
    )


def rate_in_words(term: OverageSpec, currency: str) -> str:
    """For instance "$0.01 per credit"."""
    return f"{price(term.unit_amount, currency)} per {counted(term.unit, Decimal(1))}"


def minimum_in_words(spec: VersionSpec, currency: str) -> str:
    """For instance "$50.00"."""
    return _NONE if spec.minimum_spend is None else price(spec.minimum_spend, currency)


def _changed(name: str, old: str, new: str) -> Iterator[str]:
    if old != new:
        yield f"{name}: {old} \N{RIGHTWARDS ARROW} {new}"


def _listed[T](
    old: Iterable[T], new: Iterable[T], name: str, key: Callable[[T], Hashable], words: Callable[[T], str]
) -> Iterator[str]:
    """What came, went or changed in a list whose items are known by a key."""
    before = _by_key(old, key)
    after = _by_key(new, key)
    for one in dict.fromkeys([*before, *after]):
        was = words(before[one]) if one in before else _NONE
        is_ = words(after[one]) if one in after else _NONE
        yield from _changed(name, was, is_)


def _by_key[T](items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Hashable, T]:
    """Where several share a key they are told apart by their place."""
    found: dict[Hashable, T] = {}
    for item in items:
        place = 0
        while (key(item), place) in found:
            place += 1
        found[key(item), place] = item
    return found


def _prices(old: Iterable[PriceSpec], new: Iterable[PriceSpec]) -> Iterator[str]:
    before, after = {price.key: price for price in old}, {price.key: price for price in new}
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            yield f"{key}: no longer priced"
        elif key not in before:
            yield f"{key}: newly priced by {after[key].meter}, {_whole(after[key])}"
        else:
            yield from _changed(f"{key}, meter", before[key].meter, after[key].meter)
            yield from _rows(key, terms_of(before[key]), terms_of(after[key]))


def _whole(price: PriceSpec) -> str:
    words = row_in_words(terms_of(price).default, price.unit)
    count = len(price.match)
    return words if not count else f"{words}, and {count} match row{'s' if count > 1 else ''}"


def _rows(key: str, old: Terms, new: Terms) -> Iterator[str]:
    yield from _changed(f"{key}", row_in_words(old.default, old.unit), row_in_words(new.default, new.unit))
    before, after = ({condition_in_words(row): row for row in terms.match} for terms in (old, new))
    for condition in dict.fromkeys([*before, *after]):
        was = row_in_words(before[condition], old.unit) if condition in before else "as everything else"
        is_ = row_in_words(after[condition], new.unit) if condition in after else "as everything else"
        yield from _changed(f"{key}, {condition}", was, is_)


def condition_in_words(row: Row) -> str:
    """A match row's condition, such as "model = mini | nano": the same however dimensions and values were ordered."""
    where = {name: sorted(values, key=lambda value: (value is None, value or "")) for name, values in row.where.items()}
    return format_where(dict(sorted(where.items())))
