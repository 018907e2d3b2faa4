"""Moving many subscriptions to a plan version: who is affected and by how much, and the move itself."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.core.exceptions import ValidationError

from billing.admin_pages import sentences
from billing.clock import now
from billing.cycle import services
from billing.cycle.preview import Preview, preview_open
from billing.money import ZERO, display
from billing.pricing.carrying import Carried, agreed, carried
from billing.pricing.models import PlanVersion
from billing.pricing.queries import spec_of
from billing.pricing.spec import VersionSpec
from billing.pricing.where import format_where
from billing.subscriptions.models import Subscription
from billing.subscriptions.queries import open_period
from billing.subscriptions.services import When


@dataclass(frozen=True, slots=True)
class Affected:
    """A subscription, and what its open billing period would come to under the version: None where it has ended.
    `agreed`: in words, what becomes of the amounts that were agreed with the customer."""

    subscription: Subscription
    preview: Preview | None
    agreed: Sequence[str] = ()

    @property
    def now(self) -> str:
        return self._shown(self.preview.amount_now if self.preview else None)

    @property
    def then(self) -> str:
        return self._shown(self.preview.then.amount if self.preview else None)

    @property
    def difference(self) -> str:
        difference = self.preview.difference if self.preview else None
        return f"{'+' if difference and difference > 0 else ''}{self._shown(difference)}"

    def _shown(self, amount: Decimal | None) -> str:
        return "" if amount is None else display(amount, self.subscription.version.plan.currency)


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a subscription; `refusal` is empty where it was moved."""

    subscription: Subscription
    refusal: str


def affected(subscriptions: Sequence[Subscription], version: PlanVersion) -> list[Affected]:
    """By how much the move changes what each pays, the largest difference first. Of `queries.subscriptions`."""
    spec = spec_of(version)
    opened = {period.pk: period for one in subscriptions if (period := open_period(one)) is not None}
    previews = preview_open(spec, version.plan.currency, list(opened.values()), under=version)
    by_subscription = {opened[pk].subscription_id: preview for pk, preview in previews.items()}
    kept = _agreed(subscriptions, version, spec)
    found = [Affected(one, by_subscription.get(one.pk), kept.get(one.pk, ())) for one in subscriptions]
    return sorted(found, key=_by_difference)


def _agreed(subscriptions: Sequence[Subscription], version: PlanVersion, spec: VersionSpec) -> dict[int, list[str]]:
    """By subscription: which agreed amounts are carried over, and which fall away and why. One query."""
    moving = [one for one in subscriptions if one.version_id != version.pk]
    customers, versions = {one.customer_id for one in moving}, {one.version_id for one in moving}
    since = min((now(one.customer) for one in moving), default=None)
    if since is None:
        return {}
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    known = list(agreed(customers, versions | {version.pk}, since))
    own = [one for one in known if one.price.version_id == version.pk]
    others = [one for one in known if one.price.version_id != version.pk]
    for one in carried(others, spec.prices, own, since):
        found[one.override.customer_id, one.override.price.version_id].append(_in_words(one))
    return {one.pk: found[one.customer_id, one.version_id] for one in moving}


def _in_words(one: Carried) -> str:
    """For instance "tokens, model = large: carried over"."""
    row = one.override.row
    what = f"{one.override.price.key}, {format_where(row.where)}" if row else one.override.price.key
    if one.price is None:
        return f"{what}: falls away, because {one.reason}"
    until = "" if one.override.ends_at is None else f", until {one.override.ends_at:%-d %B %Y, %H:%M} UTC"
    cut = ", but not while other amounts are agreed there" if one.is_cut else ""
    return f"{what}: carried over{until}{cut}"


def move(subscriptions: Iterable[Subscription], *, version: PlanVersion, when: When) -> list[Moved]:
    """Put each on the version, each by itself: one that is refused does not keep the others from moving."""
    return [Moved(one, _moved(one, version, when)) for one in subscriptions]


def _moved(subscription: Subscription, version: PlanVersion, when: When) -> str:
    try:
        services.change(subscription=subscription, version=version, when=when, at=now(subscription.customer))
    except ValidationError as error:
        return " ".join(sentences(error))
    return ""


def _by_difference(one: Affected) -> tuple[Decimal, str]:
    difference = one.preview.difference if one.preview else None
    return -abs(difference or ZERO), one.subscription.customer.key
