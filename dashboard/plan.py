"""What the page Plan & pricing shows: what a customer pays and why, in plain values and words. No queries here.

Amounts are exact Decimals in the unit beside them; instants are in the customer's zone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal

from billing import money
from billing.credits.models import GrantKind
from billing.credits.statements import (
    Fee,
    Late,
    Overage,
    PeriodStatement,
    RowMinimum,
    Source,
    SpendMinimum,
    explanation,
)
from billing.cycle.projection import Projection
from billing.pricing import comparing
from billing.pricing.models import CreditEvery, FeeTiming, PlanVersion
from billing.pricing.queries import PriceTerms, spec_of
from billing.pricing.schemes import Row as PriceRow
from billing.pricing.schemes import Terms, figure
from billing.pricing.spec import CreditSpec, VersionSpec
from billing.pricing.wording import row_in_words
from billing.rating.queries import Line
from billing.rating.statement import Row, Statement
from dashboard.reading import PlanReading
from dashboard.templatetags.display import plural

_HUNDRED: Final = Decimal(100)
ELSE: Final = "everything else"


@dataclass(frozen=True, slots=True)
class IncludedView:
    """Something that comes with the plan, and how much of it is used."""

    name: str
    used: Decimal
    amount: Decimal
    unit: str

    @property
    def percent(self) -> Decimal:
        return money.mul_div(self.used, _HUNDRED, self.amount)


@dataclass(frozen=True, slots=True)
class PartView:
    """One row of an amount's arithmetic. `unit_amount` is that of `per` units."""

    name: str
    quantity: Decimal
    unit_amount: Decimal
    per: Decimal
    flat_amount: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """A row of the upcoming invoice. `amount` is exact, `rounded` what is invoiced; `address` leads to its events."""

    kind: Literal["usage", "overage", "fee", "true_up", "late_adjustment"]
    name: str
    note: str
    unit: str
    amount: Decimal
    rounded: Decimal
    credits: Decimal
    explanation: str
    version: str
    parts: tuple[PartView, ...]
    address: str | None


@dataclass(frozen=True, slots=True)
class CreditView:
    """What a grant paid of the period's usage."""

    name: str
    amount: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class DiscountView:
    name: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """The upcoming invoice in the making: rows in the plan's currency, and those in other units that lead to them.
    `expected`: what will be due if usage goes on as forecast, where a minimum is not reached yet."""

    unit: str
    rows: tuple[InvoiceRow, ...]
    other_rows: tuple[InvoiceRow, ...]
    discounts: tuple[DiscountView, ...]
    credits: tuple[CreditView, ...]
    usage: Decimal
    fees: Decimal
    credits_applied: Decimal
    amount_due: Decimal
    runs: bool
    expected: Decimal | None


@dataclass(frozen=True, slots=True)
class ClosingView:
    """What came late of a subscription that has ended: late adjustments that no invoice has."""

    unit: str
    rows: tuple[InvoiceRow, ...]
    amount_due: Decimal


@dataclass(frozen=True, slots=True)
class PriceRowView:
    """What one kind of usage costs; `since`: from when on, where that is not as long as the version holds."""

    name: str
    what: str
    words: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class BookView:
    """The prices of one plan version, and when it holds in this billing period."""

    version: str
    published_at: datetime
    starts_at: datetime
    ends_at: datetime
    rows: tuple[PriceRowView, ...]


@dataclass(frozen=True, slots=True)
class ChangeView:
    """Something that will be, or could be, different."""

    at: datetime
    text: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanPage:
    """One reading of a customer's plan."""

    name: str
    number: int
    published_at: datetime
    since: datetime
    period_start: datetime
    period_end: datetime
    sentences: tuple[str, ...]
    included: tuple[IncludedView, ...]
    invoice: InvoiceView
    closing: ClosingView | None
    book: tuple[BookView, ...]
    changes: tuple[ChangeView, ...]


def plan_page(reading: PlanReading) -> PlanPage:
    """Everything that the page shows."""
    period = reading.the_period
    version = period.version
    assert version.published_at is not None, "nobody subscribes to a draft"
    return PlanPage(
        name=version.plan.name,
        number=version.number,
        published_at=reading.local(version.published_at),
        since=reading.local(period.subscription.starts_at),
        period_start=reading.local(period.starts_at),
        period_end=reading.local(period.ends_at),
        sentences=tuple(_sentences(reading)),
        included=tuple(_included(reading)),
        invoice=invoice_view(reading.statement, reading.projection),
        closing=_closing_view(reading.closing),
        book=tuple(price_book(reading)),
        changes=tuple(_changes(reading)),
    )


# --- in plain words ---------------------------------------------------------------------------------------------


def _sentences(reading: PlanReading) -> Iterator[str]:
    spec, currency = reading.spec, reading.statement.main.unit
    if (trial := reading.trial_ends_at) is not None:
        yield f"Trial: nothing is charged until {trial:%-d %B %Y, %H:%M}."
    yield _fee_sentence(spec, currency)
    yield from (_credit_sentence(term, spec) for term in spec.credits)
    for term in spec.overage:
        yield f"Beyond what you were given, {one_of(term.unit)} costs {money.price(term.unit_amount, currency)}."
    if spec.minimum_spend is not None:
        least = money.display(spec.minimum_spend, currency)
        yield f"At least {least} {every(spec)}: what is missing is added at the end of the billing period."
    if not spec.postpaid:
        yield "Usage is paid from prepaid credit."
    for discount in reading.statement.main.discount_rows:
        offer = discount.offer
        off = money.display(discount.amount, currency) if offer.percent is None else f"{figure(offer.percent)} %"
        yield f"{offer.name}: {off} off this billing period."


def _fee_sentence(spec: VersionSpec, currency: str) -> str:
    if not spec.base_fee:
        return "No base fee: you pay for what you use."
    timing = "in advance" if spec.base_fee_timing == FeeTiming.ADVANCE else "at the end of the billing period"
    return f"{money.display(spec.base_fee, currency)} {every(spec)}, {timing}, and what you use."


def _credit_sentence(term: CreditSpec, spec: VersionSpec) -> str:
    amount = money.display(term.amount, term.unit)
    often = "per month" if term.every == CreditEvery.MONTH else every(spec)
    rest = "what is left expires when the next ones come"
    if term.rollover_max:
        rest = f"up to {money.display(term.rollover_max, term.unit)} of what is left move to the next ones, once"
    return f"{amount} {often} are included; {rest}."


def every(spec: VersionSpec) -> str:
    """For instance "per month", "every 3 months"."""
    return f"per {spec.interval}" if spec.interval_count == 1 else f"every {spec.interval_count} {spec.interval}s"


def one_of(unit: str) -> str:
    return "a credit" if unit == "credits" else f"one of {unit}"


# --- included ---------------------------------------------------------------------------------------------------


def _included(reading: PlanReading) -> Iterator[IncludedView]:
    """The plan's credits of this period, and what prices include."""
    period = reading.the_period
    for balance in reading.balances:
        for one in balance.grants:
            if one.grant.kind == GrantKind.PLAN and one.grant.period_id == period.pk:
                yield IncludedView(f"{balance.unit.capitalize()} of the plan", one.used, one.grant.amount, balance.unit)
    for line in reading.lines:
        if line.terms.included:
            used = min(line.quantity, line.terms.included)
            yield IncludedView(line_name(line), used, line.terms.included, line.meter.unit)


# --- the upcoming invoice ---------------------------------------------------------------------------------------


def invoice_view(found: PeriodStatement, ahead: Projection | None) -> InvoiceView:
    """The statement, row by row. Rows without usage and amount are left out."""
    main, *others = found.units
    return InvoiceView(
        unit=main.unit,
        rows=tuple(_rows((*main.fee_rows, *main.usage_rows, *main.true_up_rows, *main.late_rows), main.unit, ahead)),
        other_rows=tuple(row for other in others for row in _rows(other.rows, other.unit)),
        discounts=tuple(DiscountView(one.offer.name, one.amount) for one in main.discount_rows),
        credits=tuple(
            CreditView(one.grant.reason or one.grant.get_kind_display(), one.amount, one.grant.unit)
            for one in found.applied
        ),
        usage=main.usage,
        fees=main.fees,
        credits_applied=main.credits_applied,
        amount_due=main.amount_due,
        runs=found.runs,
        expected=None if ahead is None else ahead.expected.amount_due,
    )


def _closing_view(found: Sequence[Statement[Source]]) -> ClosingView | None:
    if not found:
        return None
    rows = tuple(row for one in found for row in _rows(one.late_rows, one.unit))
    return ClosingView(found[0].unit, rows, found[0].amount_due)


def _rows(rows: Iterable[Row[Source]], unit: str, ahead: Projection | None = None) -> Iterator[InvoiceRow]:
    rows = list(rows)
    beside = [row.source for row in rows if isinstance(row.source, Line)]
    for row in rows:
        source = row.source
        if isinstance(source, Line) and not source.quantity and not source.amount:
            continue
        kind, name, note, version, line = _described(source, beside)
        if kind == "true_up" and ahead is not None:
            note = f"{money.display(ahead.true_up(row), unit)} if usage goes on as expected"
        yield InvoiceRow(
            kind=kind,
            name=name,
            note=note,
            unit=unit,
            amount=row.amount,
            rounded=row.rounded,
            credits=row.credits,
            explanation=explanation(row),
            version=str(version),
            parts=tuple(parts(line)) if line and kind == "usage" else (),
            address=address(line) if line else None,
        )


type _Described = tuple[
    Literal["usage", "overage", "fee", "true_up", "late_adjustment"], str, str, PlanVersion, Line | None
]


def _described(source: Source, beside: Iterable[Line]) -> _Described:
    """Kind, name, note, plan version and line. `beside`: the lines among which it stands."""
    match source:
        case Line():
            note = f"{figure(source.quantity)} {plural(source.meter.unit, source.quantity)}"
            return "usage", line_name(source, beside), note, source.segment.version, source
        case Overage(line=line, credits=credits):
            note = f"{figure(credits)} {money.counted(line.unit, credits)}"
            return "overage", f"{line.unit.capitalize()} beyond the grants: {line_name(line)}", note, _of(line), line
        case Fee(version=version):
            timing = version.get_base_fee_timing_display().lower()
            return "fee", f"{version.plan.name}, base fee", timing, version, None
        case RowMinimum(line=line):
            return "true_up", f"Up to the minimum of {line_name(line)}", "", _of(line), line
        case SpendMinimum(version=version):
            return "true_up", f"Up to the minimum spend of {version.plan.name}", "", version, None
        case Late(billed=billed, version=version):
            since, until = (f"{at:%-d %b %Y}" for at in (billed.segment.starts_at, billed.segment.ends_at))
            name = f"Late usage of {billed.price.meter.name}, {since} to {until}"
            return (
                "late_adjustment",
                name,
                f"{figure(billed.quantity)} {plural(billed.price.meter.unit, billed.quantity)}",
                version,
                None,
            )


def _of(line: Line) -> PlanVersion:
    return line.segment.version


def line_name(line: Line, beside: Iterable[Line] = ()) -> str:
    """The meter's name, and which part of its usage where a match row prices it, or one of a line `beside` it."""
    if line.row:
        return f"{line.meter.name}, {where(line.terms)}"
    is_split = any(other.row and other.price.pk == line.price.pk for other in beside)
    return f"{line.meter.name}, {ELSE}" if is_split else line.meter.name


def address(line: Line) -> str:
    """What names a line in an address: plan version, price, row, and when its plan segment begins."""
    version, since = _of(line), line.segment.starts_at.astimezone(UTC)
    return f"{version.plan.key}/{version.number}/{line.price.key}/{line.row}/{since:%Y-%m-%dT%H:%MZ}"


def where(row: PriceRow) -> str:
    """The condition of a match row: "model large-2"."""
    return ", ".join(f"{name} {_values(values)}" for name, values in row.where.items())


def part_of(terms: Terms, number: int) -> str:
    """What of the meter's usage a row of a price covers; nothing where that is all of it."""
    return where(terms.rows[number]) or (ELSE if terms.match else "")


def _values(values: Iterable[str | None]) -> str:
    return " or ".join(sorted("absent" if value is None else value for value in values))


def parts(line: Line) -> Iterator[PartView]:
    """The arithmetic of a line, tier by tier."""
    for part in line.rated.breakdown:
        name = {"usage": f"Tier {part.tier}" if part.tier else "Usage", "maximum": "Up to the maximum"}
        yield PartView(
            name=name.get(part.kind, "Up to the minimum"),
            quantity=part.quantity,
            unit_amount=part.unit_amount,
            per=line.terms.per,
            flat_amount=part.flat_amount,
            amount=part.amount,
        )


# --- the price book ---------------------------------------------------------------------------------------------


def price_book(reading: PlanReading) -> Iterator[BookView]:
    """Version by version what each kind of usage costs, the special rows first."""
    for segment, items in reading.book.items():
        version = segment.version
        assert version.published_at is not None, "nobody subscribes to a draft"
        yield BookView(
            version=str(version),
            published_at=reading.local(version.published_at),
            starts_at=reading.local(segment.starts_at),
            ends_at=reading.local(segment.ends_at),
            rows=tuple(row for item in items for row in _price_rows(item, reading)),
        )


def _price_rows(item: PriceTerms, reading: PlanReading) -> Iterator[PriceRowView]:
    said: tuple[PriceRow, ...] = ()
    for since, terms in [(None, item.terms), *item.changes]:
        order = [*range(1, len(terms.rows)), 0]
        for number in order:
            row = terms.rows[number]
            if not said or said[number] != row:
                what = part_of(terms, number) or "all usage"
                words = row_in_words(row, terms.unit, plural(item.meter.unit, Decimal(2)))
                yield PriceRowView(item.meter.name, what, words, since and reading.local(since))
        said = terms.rows


def _changes(reading: PlanReading) -> Iterator[ChangeView]:
    """What was asked for, and versions of the plan that new subscriptions take, now or later."""
    subscription, unit = reading.the_period.subscription, reading.statement.main.unit
    end = reading.local(reading.the_period.ends_at)
    if subscription.ends_at is not None:
        yield ChangeView(reading.local(subscription.ends_at), "The subscription ends", ())
    elif subscription.next_version is not None:
        said = comparing.changes(reading.spec, spec_of(subscription.next_version), unit)
        yield ChangeView(end, f"You change to {subscription.next_version}", tuple(said))
    for version in reading.newer:
        assert version.published_at is not None, "it is published"
        yield ChangeView(
            at=reading.local(version.published_at),
            text=f"{version} is for new subscriptions; yours stays on version {reading.the_period.version.number}",
            details=tuple(comparing.changes(reading.spec, spec_of(version), unit)),
        )


# --- other plans ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AlternativeView:
    """What another plan would have charged for the same usage; `difference` is below zero where it is cheaper."""

    name: str
    sentence: str
    amount: Decimal
    difference: Decimal


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """The same usage under other plans: fees and usage, before coupons, gifts and tax, which every plan has alike."""

    starts_at: datetime
    ends_at: datetime
    is_over: bool
    unit: str
    own: str
    amount: Decimal
    rows: tuple[AlternativeView, ...]


def comparison(reading: PlanReading) -> ComparisonView | None:
    """None where no other plan prices what was used."""
    rows = [(version, found) for version, found in reading.alternatives if found.now is not None]
    if not rows:
        return None
    period, unit = reading.compared, reading.compared.version.plan.currency
    own = next(found.now for _, found in rows if found.now is not None)
    return ComparisonView(
        starts_at=reading.local(period.starts_at),
        ends_at=reading.local(period.ends_at),
        is_over=period.ends_at <= reading.at,
        unit=unit,
        own=period.version.plan.name,
        amount=own.amount,
        rows=tuple(
            AlternativeView(
                name=version.plan.name,
                sentence=_fee_sentence(spec_of(version), unit),
                amount=found.then.amount,
                difference=found.difference or Decimal(0),
            )
            for version, found in rows
        ),
    )
