"""What a process remembers of customers, so that it need not be read for each question.

Nothing is ever out of date: what a customer pays is used only while `agreed` names it, and what its periods hold while
its `version` is that of the moment; both come with the other facts. What is read for a question is remembered once the
version shows that nothing had moved meanwhile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from threading import Lock
from typing import Final

from accounts.models import Customer
from billing.authorizations.reading import Facts
from billing.credits import queries as credits
from billing.metering.models import Meter
from billing.pricing.queries import PriceTerms
from billing.rating.core import Tally
from billing.rating.marginal import Prices
from billing.rating.queries import tallied
from billing.subscriptions.models import PlanSegment

MOST: Final = 10_000  # customers


@dataclass(frozen=True, slots=True)
class _Known:
    """Of one customer. `parked` is None where it was not asked for."""

    agreed: str
    prices: Prices
    meters: Mapping[str, Meter]
    version: int
    used: Mapping[tuple[int, int], Tally[None]] = field(default_factory=dict)
    parked: Mapping[str, Decimal] | None = None


class _Memory:
    """By customer key; what was learned last is forgotten last."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._lock = Lock()

    def get(self, key: str) -> _Known | None:
        return self._known.get(key)

    def keep(self, key: str, known: _Known) -> None:
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = known
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]


_memory: Final = _Memory()


def takes_long(key: str) -> bool:
    """Whether a question of this customer may have to read more than facts."""
    known = _memory.get(key)
    return known is None or bool(known.used) or known.parked is not None


class Recalled:
    """What is remembered of a customer and still true by the facts; the rest is read."""

    def __init__(self, key: str, facts: Facts) -> None:
        known = _memory.get(key)
        self.has_read = False
        self._key, self._facts = key, facts
        if known is None or known.agreed != facts.agreed:
            known = self._read()
        if known.version != facts.version:
            known = replace(known, version=facts.version, used={}, parked=None)
        self._known = known

    def _read(self) -> _Known:
        self.has_read = True
        meters = {meter.key: meter for meter in Meter.objects.all()}
        return _Known(self._facts.agreed, Prices(self._customer), meters, self._facts.version)

    @property
    def _customer(self) -> Customer:
        return Customer(pk=self._facts.customer, key=self._key)

    @property
    def prices(self) -> Prices:
        return self._known.prices

    def meter(self, key: str) -> Meter | None:
        return self._known.meters.get(key)

    def used(self, segment: PlanSegment, item: PriceTerms) -> Tally[None]:
        """What the plan segment holds of a price."""
        name = segment.pk, item.price.pk
        if name not in self._known.used:
            self.has_read = True
            self._known = replace(self._known, used={**self._known.used, name: tallied(segment, item)})
        return self._known.used[name]

    def parked(self) -> Mapping[str, Decimal]:
        """By unit: what is rated but not allocated, while the customer's books are parked."""
        if not self._facts.is_parked:
            return {}
        if self._known.parked is None:
            self.has_read = True
            self._known = replace(self._known, parked=credits.parked_amounts(self._customer))
        return self._known.parked or {}

    def keep(self) -> None:
        """What was read is true: the version is still that of the facts."""
        _memory.keep(self._key, self._known)
