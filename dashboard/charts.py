"""Rows to Plotly figures: plain dicts, no database, no plotly package.

Floats appear here and nowhere else, because a line on a screen needs no more; every label beside it is exact.
A colour is the name of a CSS variable, which charts.js resolves for light and dark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from billing import money
from dashboard.credits import BurnDown, CreditCard
from dashboard.overview import Forecast, Overview
from dashboard.templatetags.display import about, about_number

type Point = tuple[datetime, Decimal]

_HEADROOM = Decimal("1.08")  # above the highest line, so that it does not touch the frame
_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The same lines in an SVG of 100 x 100: shown until Plotly arrives, and for good without JavaScript."""

    points: str
    ahead: str | None
    limit: str | None
    top: str
    first: str
    last: str


def cumulative_points(overview: Overview) -> list[Point]:
    """Where the line passes: zero at the period's start, then the total at the end of each day so far."""
    return [(overview.period_start, Decimal(0)), *_day_ends(overview)]


def _day_ends(overview: Overview) -> Iterator[Point]:
    ends = [day.start for day in overview.days[1:]] + [min(overview.freshness.data_to, overview.period_end)]
    for day, end in zip(overview.days, ends, strict=False):
        yield end, day.cumulative


def cumulative_figure(overview: Overview) -> dict[str, object]:
    """Cumulative spend of the period and where it is expected to end, against the budget line when there is one."""
    points = cumulative_points(overview)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Spend",
            "x": [_wall_clock(at) for at, _ in points],
            "y": [float(amount) for _, amount in points],
            "customdata": [money.display(amount, overview.unit) for _, amount in points],
            "hovertemplate": "%{customdata} spent<extra></extra>",
            "line": {"color": "--series-1", "width": 2.5},
            "fill": "tozeroy",
            "fillcolor": "--series-1-wash",
        }
    ]
    if overview.forecast:
        data += _expected(overview, overview.forecast)
    if overview.budget:
        data.append(_budget_line(overview, overview.budget.amount))
    return {"data": data, "layout": _layout(overview)}


def _expected(overview: Overview, forecast: Forecast) -> Iterator[dict[str, object]]:
    """The wedge between the ends that are expected, from the present on."""
    for name, end, fill in (("Expected at least", forecast.low, "none"), ("at most", forecast.high, "tonexty")):
        yield {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": [_wall_clock(overview.freshness.data_to), _wall_clock(overview.period_end)],
            "y": [float(overview.used), float(end)],
            "hoverinfo": "skip",
            "line": {"color": "--series-1", "width": 1.5, "dash": "dash"},
            "fill": fill,
            "fillcolor": "--series-1-wash",
        }


def _budget_line(overview: Overview, amount: Decimal) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Budget",
        "x": [_wall_clock(overview.period_start), _wall_clock(overview.period_end)],
        "y": [float(amount)] * 2,
        "hoverinfo": "skip",
        "line": {"color": "--limit", "width": 2, "dash": "dash"},
    }


def _layout(overview: Overview) -> dict[str, object]:
    period = [_wall_clock(overview.period_start), _wall_clock(overview.period_end)]
    prefix, suffix = _affixes(overview.unit)
    return {
        "xaxis": {"type": "date", "range": period, "tickformat": "%-d %b", "hoverformat": "%a %-d %b, %H:%M"},
        "yaxis": {
            "range": [0, float(_top(overview))],
            "tickprefix": prefix,
            "ticksuffix": suffix,
            "separatethousands": True,
            "exponentformat": "none",
        },
    }


def _affixes(unit: str) -> tuple[str, str]:
    """What stands before and after a number on an axis: of a unit that is no currency the legend says the name."""
    if not money.is_currency(unit):
        return "", ""
    before, _, after = money.display(Decimal(2), unit).partition("2")
    return before, after.lstrip(".0")


def _top(overview: Overview) -> Decimal:
    limit = overview.budget.amount if overview.budget else Decimal(0)
    high = overview.forecast.high if overview.forecast else Decimal(0)
    return max(overview.used, limit, high, Decimal("0.01")) * _HEADROOM


def sketch(overview: Overview) -> Sketch:
    top, start = _top(overview), overview.period_start
    length = (overview.period_end - start).total_seconds()

    def place(at: datetime, amount: Decimal) -> str:
        return f"{100 * (at - start).total_seconds() / length:.2f},{_HUNDRED - amount * 100 / top:.2f}"

    budget, forecast, now, end = overview.budget, overview.forecast, overview.freshness.data_to, overview.period_end
    wedge = forecast and [place(now, overview.used), place(end, forecast.high), place(end, forecast.low)]
    return Sketch(
        ahead=" ".join(wedge) if wedge else None,
        points=" ".join(place(at, amount) for at, amount in cumulative_points(overview)),
        limit=f"{_HUNDRED - budget.amount * 100 / top:.2f}" if budget else None,
        top=about(_top(overview) / _HEADROOM, overview.unit),
        first=f"{start:%-d %b}",
        last=f"{overview.period_end - timedelta(microseconds=1):%-d %b}",
    )


def summary(overview: Overview) -> str:
    """The chart in one sentence, for those who do not see it and those in a hurry."""
    text = f"{money.display(overview.used, overview.unit)} spent since {overview.period_start:%-d %B}"
    if overview.budget:
        text += f", {overview.budget.percent.quantize(Decimal('0.1'))} % of the budget"
    leader = next((row for breakdown in overview.breakdowns for row in breakdown.rows[:1] if row.name), None)
    if leader:
        text += f". {leader.name} is {leader.percent.quantize(Decimal(1))} % of it"
    if overview.forecast:
        low, high = about_number(overview.forecast.low, overview.unit), about(overview.forecast.high, overview.unit)
        last = overview.period_end - timedelta(microseconds=1)
        text += f". Between {low} and {high} are expected by {last:%-d %B}"
    return f"{text}."


def _wall_clock(at: datetime) -> str:
    """The customer's local time without an offset: Plotly draws what it reads and knows no zones."""
    return at.replace(tzinfo=None).isoformat(timespec="seconds")


# --- credits ----------------------------------------------------------------------------------------------------------


def burn_down_figure(card: CreditCard) -> dict[str, object]:
    """What was available, what will be at the present pace (dashed), and where something expires (upright)."""
    burn = card.burn_down
    data = [_burn_line(card, "Available", burn.past, {"color": "--series-1", "width": 2.5}, "available")]
    if len(burn.ahead) > 1:
        dashed = {"color": "--series-1", "width": 2, "dash": "dash"}
        data.append(_burn_line(card, "At this pace", burn.ahead, dashed, "expected at this pace"))
    prefix, suffix = _affixes(card.unit)
    layout = {
        "xaxis": {
            "type": "date",
            "range": [_wall_clock(burn.start), _wall_clock(burn.end)],
            "tickformat": "%-d %b",
            "hoverformat": "%a %-d %b, %H:%M",
        },
        "yaxis": {
            "range": [0, float(_most(burn) * _HEADROOM)],
            "tickprefix": prefix,
            "ticksuffix": suffix,
            "separatethousands": True,
            "exponentformat": "none",
        },
        "shapes": [
            {
                "type": "line",
                "x0": _wall_clock(mark.at),
                "x1": _wall_clock(mark.at),
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": "--limit", "width": 1.5, "dash": "dot"},
            }
            for mark in burn.marks
        ],
    }
    return {"data": data, "layout": layout}


def _burn_line(
    card: CreditCard, name: str, points: Sequence[Point], line: dict[str, object], words: str
) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [_wall_clock(at) for at, _ in points],
        "y": [float(amount) for _, amount in points],
        "customdata": [money.display(amount, card.unit) for _, amount in points],
        "hovertemplate": f"%{{customdata}} {words}<extra></extra>",
        "line": line,
    }


def _most(burn: BurnDown) -> Decimal:
    return max(*(amount for _, amount in (*burn.past, *burn.ahead)), Decimal("0.01"))


@dataclass(frozen=True, slots=True)
class BurnSketch:
    """As `Sketch`, with the part that is expected and the expiries."""

    points: str
    ahead: str
    marks: tuple[str, ...]
    top: str
    first: str
    last: str


def burn_down_sketch(card: CreditCard) -> BurnSketch:
    burn = card.burn_down
    top, length = _most(burn) * _HEADROOM, max((burn.end - burn.start).total_seconds(), 1)

    def across(at: datetime) -> str:
        return f"{100 * (at - burn.start).total_seconds() / length:.2f}"

    def line(points: Sequence[Point]) -> str:
        return " ".join(f"{across(at)},{_HUNDRED - amount * 100 / top:.2f}" for at, amount in points)

    return BurnSketch(
        points=line(burn.past),
        ahead=line(burn.ahead),
        marks=tuple(across(mark.at) for mark in burn.marks),
        top=money.display(_most(burn), card.unit),
        first=f"{burn.start:%-d %b}",
        last=f"{burn.end - timedelta(microseconds=1):%-d %b}",
    )


def burn_down_summary(card: CreditCard) -> str:
    """The chart in a sentence or two."""
    text = f"{money.display(card.available, card.unit)} available"
    outlook = card.outlook
    if outlook is None:
        return f"{text}. With a day of usage this shows how long they last."
    text += f", {about(outlook.per_day, card.unit)} used a day"
    if outlook.runs_out_at:
        text += f": gone about {outlook.runs_out_at.astimezone(card.burn_down.start.tzinfo):%-d %B %Y}"
        text += ", with what comes by then" if outlook.grows else ""
    elif card.available > 0:
        text += ": not gone as far as can be seen"
    lost = [
        f"{about(mark.lapse, card.unit)} expire after {mark.at - timedelta(microseconds=1):%-d %B}"
        for mark in card.burn_down.marks[:2]
    ]
    return f"{text}. At this pace {' and '.join(lost)}." if lost else f"{text}."
