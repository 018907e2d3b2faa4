"""What keeps terms from being published: numbers out of range, broken tiers, rows that leave a tie."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from billing.money import ZERO
from billing.pricing.schemes import Row, Terms, Tier, Where


@dataclass(frozen=True, slots=True)
class Problem:
    """Why terms are refused: `field` is a path such as "match.0.tiers.1.up_to"."""

    field: str
    code: str
    detail: str


def problems(terms: Terms) -> list[Problem]:
    """Everything that keeps terms from being published; empty when they are sound."""
    found = _row_problems(terms.default, "")
    for index, row in enumerate(terms.match):
        prefix = f"match.{index}."
        found += _row_problems(row, prefix)
        if row.is_default:
            found.append(Problem(prefix + "where", "required", "Name at least one dimension to match."))
    for first, second in overlaps(terms.match):
        detail = (
            f"Rows {first + 1} and {second + 1} can match the same event and neither is more specific. "
            "Change one, or add a row that names the dimensions of both."
        )
        found.append(Problem(f"match.{second}.where", "ambiguous_match", detail))
    return found


def _row_problems(row: Row, prefix: str) -> list[Problem]:
    found = [
        Problem(prefix + name, "negative", "Send zero or more.")
        for name in ("unit_amount", "package_amount", "rate", "fixed_amount", "included")
        if getattr(row, name) < 0
    ]
    found += [
        Problem(prefix + name, "not_positive", "Send more than zero.")
        for name in ("per", "package_size")
        if getattr(row, name) <= 0
    ]
    found += _limit_problems(row, prefix)
    if row.scheme in ("graduated", "volume"):
        found += _tier_problems(row.tiers, prefix + "tiers")
    return found


def _limit_problems(row: Row, prefix: str) -> list[Problem]:
    low, high = row.minimum_amount, row.maximum_amount
    found = [
        Problem(prefix + name, "negative", "Send zero or more, or null for no limit.")
        for name, limit in (("minimum_amount", low), ("maximum_amount", high))
        if limit is not None and limit < 0
    ]
    if low is not None and high is not None and low > high:
        found.append(Problem(prefix + "maximum_amount", "below_minimum", "Send at least the minimum amount."))
    return found


def _tier_problems(tiers: tuple[Tier, ...], path: str) -> list[Problem]:
    if not tiers:
        return [Problem(path, "required", "List at least one tier; the last has up_to null.")]
    found = [
        Problem(f"{path}.{index}", "negative", "Send amounts of zero or more.")
        for index, tier in enumerate(tiers)
        if tier.unit_amount < 0 or tier.flat_amount < 0
    ]
    if tiers[-1].up_to is not None:
        found.append(Problem(f"{path}.{len(tiers) - 1}.up_to", "not_open", "The last tier has up_to null."))
    bounds = [ZERO, *(tier.up_to for tier in tiers[:-1])]
    found += [
        Problem(
            f"{path}.{index}.up_to",
            "not_rising",
            "Each tier ends above the one before; only the last is null.",
        )
        for index, (lower, upper) in enumerate(pairwise(bounds))
        if upper is None or (lower is not None and upper <= lower)
    ]
    return found


def overlaps(rows: Iterable[Row]) -> list[tuple[int, int]]:
    """Pairs of rows (by position) that can match the same event, equally specific, and leave it undecided.

    A pair is decided when a row with more keys matches everything that both match.
    """
    wheres = [row.where for row in rows]
    return [
        (first, second)
        for first in range(len(wheres))
        for second in range(first + 1, len(wheres))
        if len(wheres[first]) == len(wheres[second])
        and (both := _intersection(wheres[first], wheres[second])) is not None
        and not any(len(other) > len(wheres[first]) and _covers(other, both) for other in wheres)
    ]


def _intersection(first: Where, second: Where) -> Where | None:
    """The `where` of the events that both match; None if there can be none."""
    both = {**first, **second, **{key: first[key] & second[key] for key in first.keys() & second.keys()}}
    return both if all(both.values()) else None


def _covers(where: Where, other: Where) -> bool:
    return all(key in other and other[key] <= values for key, values in where.items())
