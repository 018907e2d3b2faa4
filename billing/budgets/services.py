"""Actions on budgets, and the watch that turns a crossed threshold into an alert and its mails.

Whoever judges a customer holds its claim: counters, levels and alerts then belong to one moment.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Final, NamedTuple

from django.db import connection, transaction

from accounts.ids import new_id
from accounts.models import Customer
from billing.budgets import announcement, evaluation, queries
from billing.budgets.announcement import Facts, Occasion
from billing.budgets.evaluation import Crossing, Watched
from billing.budgets.models import Alert, AlertDirection, Budget, Threshold
from billing.budgets.recipients import checked
from billing.budgets.validation import ThresholdSpec, about, check_budget, check_thresholds
from billing.errors import Conflict
from billing.metering import queries as metering_queries
from billing.metering import services as metering
from billing.notifications import services as notifications
from billing.reads import shared
from billing.subscriptions import queries as subscriptions
from billing.subscriptions.models import BillingPeriod


class Unchanged(Enum):
    """What an edit leaves as it is, where None means something else."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@transaction.atomic
def create_budget(
    *,
    customer: Customer,
    name: str,
    unit: str,
    amount: Decimal,
    thresholds: Sequence[ThresholdSpec],
    recipients: Sequence[str],
    at: datetime,
    stop_at_percent: Decimal | None = None,
    trusted: bool = False,
) -> Budget:
    """A budget of the billing period, judged at once. `trusted`: an operator names the recipients. Authorizations
    beyond `stop_at_percent` of the amount are denied; None for a budget that only warns.

    Raises ValidationError by field ("thresholds.0.percent").
    """
    metering.claim(customer_id=customer.pk)
    budget = Budget(
        customer=customer,
        name=name.strip(),
        unit=unit,
        amount=amount,
        stop_at_percent=stop_at_percent,
        created_at=at,
        levels_since=at,
    )
    check_budget(budget)
    with about("recipients"):
        budget.recipients = checked(customer, recipients, trusted=trusted)
    budget.save(force_insert=True)
    _set_thresholds(budget, thresholds, at=at)
    return _judge_now(budget, at=at)


@transaction.atomic
def update_budget(
    *,
    budget: Budget,
    at: datetime,
    name: str | None = None,
    amount: Decimal | None = None,
    thresholds: Sequence[ThresholdSpec] | None = None,
    recipients: Sequence[str] | None = None,
    stop_at_percent: Decimal | Unchanged | None = UNCHANGED,
    trusted: bool = False,
) -> Budget:
    """Change what is given and judge the budget at once.

    Thresholds keep their id, and with it what they have fired. A level that now lies well above the spend may fire
    again; one that lies below it fires now. Raises ValidationError by field, Conflict `budget_archived`.
    """
    metering.claim(customer_id=budget.customer_id)
    budget = _current(budget)
    if name is not None:
        budget.name = name.strip()
    if amount is not None and amount != budget.amount:
        budget.amount, budget.levels_since = amount, at
    if stop_at_percent is not UNCHANGED:
        budget.stop_at_percent = stop_at_percent
    check_budget(budget)
    if recipients is not None:
        with about("recipients"):
            budget.recipients = checked(budget.customer, recipients, trusted=trusted, known=budget.recipients)
    if thresholds is not None and _set_thresholds(budget, thresholds, at=at):
        budget.levels_since = at
    budget.save(update_fields=["name", "amount", "stop_at_percent", "levels_since", "recipients"])
    return _judge_now(budget, at=at)


@transaction.atomic
def archive_budget(*, budget: Budget, at: datetime) -> None:
    """Stop watching it. Its alerts stay."""
    metering.claim(customer_id=budget.customer_id)
    metering.publish(customer_id=budget.customer_id)
    Budget.objects.filter(pk=budget.pk, archived_at=None).update(archived_at=at)


@transaction.atomic
def send_test(*, budget: Budget, at: datetime) -> list[str]:
    """Mail every recipient what an alert of this budget looks like. Returns their addresses.

    Raises Conflict `no_subscription` when there is no billing period to report on.
    """
    budget = _current(budget)
    period = subscriptions.current_period(budget.customer, at)
    if period is None:
        detail = "The customer has no subscription, so there is no billing period to report on. Start one first."
        raise Conflict(detail, code="no_subscription")
    value = queries.used(budget.customer, unit=budget.unit, period=period)
    as_of = metering_queries.counted_through(budget.customer)
    return _announce(Facts("test", budget, period, value, as_of), cause=new_id("test"), at=at)


def watch_all(*, as_of: Mapping[int, datetime], at: datetime) -> set[int]:
    """Judge every budget of these customers in each billing period that is not closed; for whom anything was written.

    Needs the claims. `as_of`, by customer, is what the counters count through: pages show the same.
    """
    budgets = queries.budgets_of(as_of)
    periods = queries.judged_periods(budgets, at) if budgets else []
    history = queries.history(periods) if periods else {}
    written: set[int] = set()
    noted: dict[int, _Noted] = {}
    with shared():
        queries.read_spend_ahead(periods)
        for period in periods:
            customer_id = period.customer_id
            concerned = [
                budget
                for budget in budgets[customer_id]
                if period.ends_at > at or budget.levels_since <= period.ends_at
            ]
            values = _used(concerned, period)
            if _judge(concerned, period, values, history, occasion="crossed", at=at, as_of=as_of[customer_id]):
                written.add(customer_id)
            for one in _to_note(concerned, period, values):
                noted.setdefault(one.budget_id, one)  # the latest period comes first
    _note_use(noted.values())
    return written


def _current(budget: Budget) -> Budget:
    """The budget as it is stored now. Raises Conflict `budget_archived`."""
    found = Budget.objects.select_related("customer").filter(pk=budget.pk, archived_at=None).first()
    if found is None:
        raise Conflict(f'The budget "{budget.name}" was archived meanwhile. Make a new one.', code="budget_archived")
    return found


# --- levels ---------------------------------------------------------------------------------------------------


def _set_thresholds(budget: Budget, specs: Sequence[ThresholdSpec], *, at: datetime) -> bool:
    """Make these the budget's thresholds; whether any of them changed.

    One that is not named is archived. One that comes back is the old one, and what it fired still counts.
    """
    mine = Threshold.objects.filter(budget=budget)
    stored = list(mine.order_by("-id"))
    active = {threshold.public_id: threshold for threshold in stored if threshold.archived_at is None}
    check_thresholds(specs, set(active))
    before = {(one.pk, one.percent, one.amount) for one in active.values()}
    # A level may move from one threshold to another, and the database allows each level once: free all, then set.
    mine.filter(archived_at=None).update(archived_at=at)
    named = {spec.id for spec in specs}
    free = [one for one in stored if one.public_id not in named]
    after = set()
    for spec in specs:
        threshold = active[spec.id] if spec.id else _of_level(free, spec) or Threshold(budget=budget)
        threshold.percent, threshold.amount, threshold.archived_at = spec.percent, spec.amount, None
        threshold.save()
        after.add((threshold.pk, spec.percent, spec.amount))
    return before != after


def _of_level(free: Iterable[Threshold], spec: ThresholdSpec) -> Threshold | None:
    """A threshold that says the same, one that counts before an archived one."""
    same = [one for one in free if (one.percent, one.amount) == spec.level]
    return min(same, key=lambda one: one.archived_at is not None, default=None)


# --- judging --------------------------------------------------------------------------------------------------


def _judge_now(budget: Budget, *, at: datetime) -> Budget:
    """After an edit: what the counters say now is already above, not crossed; open pages are told. Returns the budget
    as it is stored."""
    metering.publish(customer_id=budget.customer_id)
    budget = queries.with_thresholds(Budget.objects.filter(pk=budget.pk)).get()
    period = subscriptions.current_period(budget.customer, at)
    if period is not None and at < period.ends_at:
        as_of, values = metering_queries.counted_through(budget.customer), _used([budget], period)
        _judge([budget], period, values, queries.history([period]), occasion="already_above", at=at, as_of=as_of)
        _note_use(_to_note([budget], period, values))
    return budget


def _used(budgets: Sequence[Budget], period: BillingPeriod) -> dict[str, Decimal]:
    """By unit, what counts against budgets of one customer."""
    units = {budget.unit for budget in budgets}
    return {unit: queries.used(budgets[0].customer, unit=unit, period=period) for unit in units}


def _judge(
    budgets: Sequence[Budget],
    period: BillingPeriod,
    values: Mapping[str, Decimal],
    history: queries.Histories,
    *,
    occasion: Occasion,
    at: datetime,
    as_of: datetime,
) -> bool:
    """Write what evaluation finds for budgets of one customer in one period."""
    fired_before = history.get((period.customer_id, period.starts_at), {})
    written = False
    for budget in budgets:
        facts = Facts(occasion, budget, period, values[budget.unit], as_of)
        written |= _record(facts, evaluation.evaluate(facts.value, _watched(budget, fired_before)), at=at)
    return written


class _Noted(NamedTuple):
    """What a budget that stops something has used, of the period that begins then."""

    budget_id: int
    used: Decimal
    used_from: datetime


def _to_note(budgets: Iterable[Budget], period: BillingPeriod, values: Mapping[str, Decimal]) -> list[_Noted]:
    stopping = [budget for budget in budgets if budget.stop_at_percent is not None]
    return [_Noted(budget.pk, values[budget.unit], period.starts_at) for budget in stopping]


def _note_use(noted: Collection[_Noted]) -> None:
    """For authorizations, which have no time to add up a period. A period never takes the place of a later one."""
    if noted:
        with connection.cursor() as cursor:
            cursor.execute(_NOTE_USE, [list(column) for column in zip(*noted, strict=True)])


_NOTE_USE: Final = """
UPDATE billing_budget AS budget SET used = noted.used, used_from = noted.used_from
FROM unnest(%s::bigint[], %s::numeric[], %s::timestamptz[]) AS noted (id, used, used_from)
WHERE budget.id = noted.id AND coalesce(budget.used_from, '-infinity') <= noted.used_from
    AND (budget.used, budget.used_from) IS DISTINCT FROM (noted.used, noted.used_from)
"""


def _watched(budget: Budget, history: queries.History) -> Iterable[Watched]:
    for threshold in budget.thresholds.all():
        epoch, fired = evaluation.history(history.get(threshold.pk, ()))
        yield Watched(threshold.pk, queries.level(budget, threshold), epoch, fired)


def _record(facts: Facts, found: evaluation.Evaluation, *, at: datetime) -> bool:
    """Insert the alerts and, for those that fired, one mail per recipient, which names the highest.

    The unique row is the guard: only alerts that this transaction inserted are told of.
    """
    if not found.fired and not found.resolved:
        return False
    cause = new_id("told")
    thresholds = {threshold.pk: threshold for threshold in facts.budget.thresholds.all()}
    fired = [_alert(facts, crossing, thresholds, cause=cause, at=at) for crossing in found.fired]
    resolved = [_alert(facts, crossing, thresholds, cause="", at=at) for crossing in found.resolved]
    Alert.objects.bulk_create([*fired, *resolved], ignore_conflicts=True)
    ids = [alert.public_id for alert in (*fired, *resolved)]
    inserted = set(Alert.objects.filter(public_id__in=ids).values_list("public_id", flat=True))
    news = [alert for alert in fired if alert.public_id in inserted]
    if news:
        told = Facts(facts.occasion, facts.budget, facts.period, facts.value, facts.as_of, news)
        _announce(told, cause=cause, at=at)
    return bool(inserted)


def _alert(facts: Facts, crossing: Crossing, thresholds: Mapping[int, Threshold], *, cause: str, at: datetime) -> Alert:
    return Alert(
        threshold=thresholds[crossing.threshold],
        customer=facts.budget.customer,
        period_start=facts.period.starts_at,
        period_end=facts.period.ends_at,
        epoch=crossing.epoch,
        direction=AlertDirection(crossing.direction),
        value=facts.value,
        limit=facts.budget.amount,
        level=crossing.level,
        as_of=facts.as_of,
        announcement=cause,
        created_at=at,
    )


def _announce(facts: Facts, *, cause: str, at: datetime) -> list[str]:
    """Queue one mail for each recipient; returns their addresses."""
    addresses = queries.recipients(facts.budget)
    context = announcement.context(facts)
    subject = facts.alerts[0].public_id if facts.alerts else cause
    for address in addresses:
        notifications.enqueue(
            kind=announcement.KIND,
            recipient=address,
            context=context,
            dedup_key=f"{subject}:email:{address}",
            customer=facts.budget.customer,
            at=at,
            cause=cause,
            thread=f"{facts.budget.public_id}.{facts.period.starts_at:%Y%m%dT%H%M}",
        )
    return addresses
