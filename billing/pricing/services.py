"""Actions on the catalog: plans, and versions that may change until they are published."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max

from billing.errors import Conflict
from billing.metering import services as metering
from billing.metering.counting import compiled
from billing.metering.models import Meter
from billing.money import is_currency
from billing.pricing.models import CreditTerm, MatchRow, OverageTerm, Plan, PlanVersion, Price, VersionStatus
from billing.pricing.queries import spec_of
from billing.pricing.schemes import normalise_where
from billing.pricing.spec import (
    ROW_AMOUNTS,
    MatchSpec,
    PriceSpec,
    VersionSpec,
    key_problems,
    spec_problems,
    tier_as_stored,
)
from billing.pricing.validation import Problem
from billing.pricing.where import named_values

_CLOCKS_DIFFER: Final = timedelta(minutes=1)  # a caller's from ours


def create_plan(
    *, key: str, name: str, currency: str, is_add_on: bool = False, is_listed: bool = False, at: datetime
) -> Plan:
    """A plan without versions. Raises ValidationError by field, Conflict `already_exists`."""
    found = list(key_problems(key))
    if not is_currency(currency):
        detail = "Use the three capital letters of an ISO 4217 currency, such as USD."
        found.append(Problem("currency", "unknown_currency", detail))
    if found:
        raise refusal(found)
    Plan(key=key, name=name, currency=currency).clean_fields()
    fields = {"name": name, "currency": currency, "is_add_on": is_add_on, "is_listed": is_listed, "created_at": at}
    plan, created = Plan.objects.get_or_create(key=key, defaults=fields)
    if not created:
        raise Conflict(f'There is a plan "{key}" already. Choose another key.', code="already_exists", field="key")
    return plan


@transaction.atomic
def create_version(*, plan: Plan, spec: VersionSpec, at: datetime) -> PlanVersion:
    """The next version of the plan, as a draft. Raises ValidationError by path ("prices.0.match.1.where")."""
    check(spec, plan)
    version = PlanVersion(plan=plan, number=next_number(plan), created_at=at)
    _write(version, spec)
    return version


def next_number(plan: Plan) -> int:
    """Of the plan's next version. Locks the plan, so that two at once cannot take the same; needs a transaction."""
    Plan.objects.select_for_update().get(pk=plan.pk)
    return (plan.versions.aggregate(last=Max("number"))["last"] or 0) + 1


@transaction.atomic
def update_draft(*, version: PlanVersion, spec: VersionSpec, at: datetime) -> PlanVersion:
    """Make the draft say something else. Raises ValidationError, Conflict `version_published`."""
    version = _locked_draft(version)
    check(spec, version.plan)
    version.credits.all().delete()
    version.overage.all().delete()
    _write(version, spec)
    return version


@transaction.atomic
def write_price(*, version: PlanVersion, price: PriceSpec, replaces: str | None = None, at: datetime) -> PlanVersion:
    """Put a price into the draft, last or in the place of the one with the key `replaces`.

    Raises ValidationError by path within the price ("match.1.where"), Conflict `version_published`.
    """
    version = _locked_draft(version)
    spec, place = with_price(spec_of(version), price, replaces)
    found = price_problems(version.plan, spec, place)
    if found:
        raise refusal(found)
    _rewrite_prices(version, spec.prices)
    return version


@transaction.atomic
def remove_price(*, version: PlanVersion, key: str, at: datetime) -> PlanVersion:
    """Take a price out of the draft, if it is there. Raises Conflict `version_published`."""
    version = _locked_draft(version)
    version.prices.filter(key=key).delete()
    return version


def with_price(spec: VersionSpec, price: PriceSpec, replaces: str | None) -> tuple[VersionSpec, int]:
    """What the version would say with this price, and the price's place in it."""
    keys = [one.key for one in spec.prices]
    place = keys.index(replaces) if replaces in keys else len(keys)
    prices = (*spec.prices[:place], price, *spec.prices[place + 1 :])
    return replace(spec, prices=prices), place


def price_problems(plan: Plan, spec: VersionSpec, place: int) -> list[Problem]:
    """What is wrong with one of the prices, by path within it, however unfinished the rest is."""
    prefix = f"prices.{place}."
    found = [*_all_problems(spec, plan)]
    return [replace(one, field=one.field.removeprefix(prefix)) for one in found if one.field.startswith(prefix)]


@transaction.atomic
def publish(*, version: PlanVersion, at: datetime, published_at: datetime | None = None) -> PlanVersion:
    """Freeze the draft; new subscriptions take it from `published_at` (default: `at`) on, which is not in the past.

    Checks it once more, because meters may have changed. Raises ValidationError, Conflict `version_published`.
    """
    version = _locked_draft(version)
    if published_at is not None and published_at < at - _CLOCKS_DIFFER:
        detail = "A version cannot be published in the past: what was sold then is what it was. Leave it out for now."
        raise refusal([Problem("at", "in_the_past", detail)])
    check(spec_of(version), version.plan)
    version.status = VersionStatus.PUBLISHED
    version.published_at = max(published_at or at, at)
    version.save(update_fields=["status", "published_at"])
    metering.name_values(named_by=f"plan {version.plan.key} version {version.number}", namings=_namings(version))
    return version


@transaction.atomic
def retire(*, version: PlanVersion, at: datetime) -> PlanVersion:
    """No subscription begins with the version from now on; those that have it keep it.

    Raises Conflict `version_not_published`. Retiring twice changes nothing.
    """
    version = _locked(version)
    if version.status == VersionStatus.DRAFT:
        raise Conflict("A draft is not for sale yet: delete it instead.", code="version_not_published")
    if version.status == VersionStatus.PUBLISHED:
        version.status, version.retired_at = VersionStatus.RETIRED, at
        version.save(update_fields=["status", "retired_at"])
    return version


def _namings(version: PlanVersion) -> Iterator[tuple[int, str, str | None]]:
    """The meters' dimension values that match rows are about: these stay apart, however many others there are."""
    rows = MatchRow.objects.filter(price__version=version).values_list("price__meter", "where")
    return ((meter_id, *named) for meter_id, where in rows for named in named_values(where))


def check(spec: VersionSpec, plan: Plan) -> None:
    """Raise ValidationError, keyed by path, if the plan cannot say this."""
    found = _all_problems(spec, plan)
    if found:
        raise refusal(found)


def _all_problems(spec: VersionSpec, plan: Plan) -> list[Problem]:
    meters = {meter.key: meter for meter in Meter.objects.filter(key__in={price.meter for price in spec.prices})}
    dimensions = {key: meter.dimensions for key, meter in meters.items()}
    found = spec_problems(spec, currency=plan.currency, dimensions=dimensions)
    return found or list(_unreachable(spec, meters))


def _unreachable(spec: VersionSpec, meters: Mapping[str, Meter]) -> Iterator[Problem]:
    """Match rows that no event could ever choose, because the meter's filters leave out all that they name."""
    for number, price in enumerate(spec.prices):
        tests = [(one["property"], compiled(**one)) for one in meters[price.meter].filters]
        for index, row in enumerate(price.match):
            for dimension, values in normalise_where(row.where).items():
                deciding = (test for name, test in tests if name == dimension)
                if any(not any(test({dimension: value}) for value in values) for test in deciding):
                    detail = f"The meter does not count events with this {dimension}, so the row would never be chosen."
                    yield Problem(f"prices.{number}.match.{index}.where", "unreachable", detail)


def refusal(found: Iterable[Problem]) -> ValidationError:
    """The problems as Django's error: a form shows it by field, the API lists it."""
    errors: dict[str, list[ValidationError]] = {}
    for problem in found:
        errors.setdefault(problem.field, []).append(ValidationError(problem.detail, code=problem.code))
    return ValidationError(errors)


def _locked_draft(version: PlanVersion) -> PlanVersion:
    locked = _locked(version)
    if locked.status != VersionStatus.DRAFT:
        raise Conflict("This version is published and never changes. Make a new version.", code="version_published")
    return locked


def _locked(version: PlanVersion) -> PlanVersion:
    return PlanVersion.objects.select_for_update(of=["self"]).select_related("plan").get(pk=version.pk)


def _write(version: PlanVersion, spec: VersionSpec) -> None:
    version.interval = spec.interval
    version.interval_count = spec.interval_count
    version.base_fee = spec.base_fee
    version.base_fee_timing = spec.base_fee_timing
    version.trial_days = spec.trial_days
    version.minimum_spend = spec.minimum_spend
    version.postpaid = spec.postpaid
    version.save()
    CreditTerm.objects.bulk_create(CreditTerm(version=version, **asdict(credit)) for credit in spec.credits)
    OverageTerm.objects.bulk_create(
        OverageTerm(version=version, unit=term.unit, unit_amount=term.unit_amount) for term in spec.overage
    )
    _rewrite_prices(version, spec.prices)


def _rewrite_prices(version: PlanVersion, specs: Iterable[PriceSpec]) -> None:
    specs = list(specs)
    version.prices.all().delete()
    meters = {meter.key: meter for meter in Meter.objects.filter(key__in={spec.meter for spec in specs})}
    prices = Price.objects.bulk_create(
        Price(
            version=version,
            key=spec.key,
            meter=meters[spec.meter],
            unit=spec.unit,
            scheme=spec.scheme,
            per=spec.per,
            **row_columns(spec),
        )
        for spec in specs
    )
    MatchRow.objects.bulk_create(
        MatchRow(price=price, where=row.where, **row_columns(row))
        for price, spec in zip(prices, specs, strict=True)
        for row in spec.match
    )


def row_columns(row: PriceSpec | MatchSpec) -> dict[str, Any]:
    """A row's amounts by the columns that hold them."""
    amounts = {name: getattr(row, name) for name in ROW_AMOUNTS}
    return {**amounts, "tiers": [tier_as_stored(tier) for tier in row.tiers]}
