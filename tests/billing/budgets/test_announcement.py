"""What the mail says, from the crossing to the mail server."""

from datetime import timedelta
from decimal import Decimal

import pytest

from accounts.models import Customer
from billing.budgets import services
from billing.budgets.models import Budget
from billing.errors import Conflict
from billing.notifications import mail
from billing.notifications import services as notifications
from billing.notifications.models import OutboxMessage
from tests.billing.budgets.conftest import AT, make_budget, percents, spend, watch

THEN = AT + timedelta(minutes=1)
SECRET = "sk-abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.fixture
def crossed(subscribed) -> OutboxMessage:
    """80 % is crossed, by two models and two keys."""
    make_budget(subscribed)
    spend(subscribed, "700", model="large-2", api_key="ingest-worker")
    spend(subscribed, "904.20", model="mini", api_key=SECRET)
    watch(subscribed)
    return OutboxMessage.objects.get()


def test_the_subject_alone_says_whose_budget_how_far_and_how_much(crossed):
    assert mail.subject(crossed) == '[Acme] 80 % of budget "Production" used: $1,604.20 of $2,000.00'


def test_the_text_says_what_is_counted_what_is_left_and_what_happens(crossed):
    text = mail.text(crossed)

    for fact in (
        'Acme / budget "Production"',
        "Billing period 1 Nov 2026 to 30 Nov 2026 (Europe/Berlin)",
        "$1,604.20, 80.2 % of $2,000.00 (gross, before credits and tax)",
        "$395.80",
        "Also passed    50 %",
        "Nothing is stopped: this budget only warns.",
        f"Open the budget: http://127.0.0.1:8000/c/acme/budget#{Budget.objects.get().public_id}",
        "Data up to 15 Nov 2026, 13:00:00 CET.",
        "at 80 %, sent once per billing period",
        'You get this because you are a recipient of budget "Production" of Acme.',
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("percent", "said"),
    [
        ("100", "Calls keep running up to the stop at $2,000.00. Beyond it those that ask before they run are denied."),
        ("80", "The stop at $1,600.00 is reached: calls that ask before they run are denied."),
    ],
)
def test_a_budget_that_stops_is_not_said_to_let_everything_run(subscribed, percent, said):
    make_budget(subscribed, stop_at_percent=Decimal(percent))
    spend(subscribed, "1604.20")
    watch(subscribed)
    message = OutboxMessage.objects.get()
    for text in (mail.text(message), mail.html(message)):
        assert said in text
        assert "Nothing is stopped" not in text


def test_the_text_names_what_the_spend_came_from_largest_first(crossed):
    text = mail.text(crossed)

    assert "Most by model\n  mini: $904.20 (56.3 %)\n  large-2: $700.00 (43.6 %)\n" in text
    assert "ingest-worker: $700.00" in text


def test_no_secret_is_mailed(crossed):
    assert "sk-abcde…" in mail.text(crossed)
    assert SECRET not in mail.text(crossed) + mail.html(crossed)


def test_text_and_html_state_the_same_numbers(crossed):
    html = mail.html(crossed)

    for number in ("$1,604.20", "$2,000.00", "80.2 %", "$395.80", "$904.20", "56.3 %"):
        assert number in html
    assert f"http://127.0.0.1:8000/c/acme/budget#{Budget.objects.get().public_id}" in html
    assert len(html) < 20_000


def test_a_retry_says_what_the_first_attempt_said(crossed, subscribed):
    before = mail.text(crossed)
    spend(subscribed, 300)
    subscribed.name = "Renamed"
    subscribed.save()

    crossed.refresh_from_db()
    assert mail.text(crossed) == before


def pace(customer: Customer) -> str:
    [message] = OutboxMessage.objects.filter(customer=customer)
    return message.context["pace"]


def spend_daily(customer: Customer, dollars: object, days: int = 14) -> None:
    for day in range(days, 0, -1):
        spend(customer, dollars, at=AT - timedelta(days=day))


def test_with_days_of_usage_the_mail_says_when_the_limit_will_be_reached(subscribed):
    make_budget(subscribed)
    spend_daily(subscribed, 100)

    watch(subscribed)

    assert pace(subscribed) == "limit reached about Fri 20 Nov; period end about $2,520 to $3,480"
    message = OutboxMessage.objects.get()
    assert f"At this pace   {pace(subscribed)}\n" in mail.text(message)
    assert pace(subscribed) in mail.html(message)


def test_a_budget_that_lasts_says_so(subscribed):
    make_budget(subscribed, thresholds=percents(20))
    spend_daily(subscribed, 40)

    watch(subscribed)

    assert pace(subscribed).startswith("the budget lasts; period end about ")


def test_without_three_days_of_usage_there_is_no_pace(subscribed, crossed):
    assert pace(subscribed) == ""
    assert "At this pace" not in mail.text(crossed) + mail.html(crossed)


def test_an_exceeded_budget_says_by_how_much(subscribed):
    make_budget(subscribed)
    spend(subscribed, "2100.50")
    watch(subscribed)

    text = mail.text(OutboxMessage.objects.get())
    assert "Over budget    $100.50" in text
    assert "Left" not in text


def test_a_crossed_threshold_arrives_as_a_mail(mail_server, crossed):
    assert notifications.deliver(at=THEN) == 1

    [received] = mail_server.messages
    assert received["To"] == "finance@acme.test"
    assert received["Subject"] == '[Acme] 80 % of budget "Production" used: $1,604.20 of $2,000.00'
    assert received["References"] == f"<{crossed.thread}@localhost.localdomain>"
    assert "Left           $395.80" in received.get_body(("plain",)).get_content()


def test_a_test_mail_looks_like_an_alert_and_says_that_it_is_none(subscribed, alice):
    budget = make_budget(subscribed, recipients=["owners"])
    spend(subscribed, "100")

    assert services.send_test(budget=budget, at=AT) == ["alice@acme.test"]

    message = OutboxMessage.objects.get()
    assert mail.subject(message) == '[Acme] Test of budget "Production": $100.00 of $2,000.00'
    assert "This is a test: no threshold was crossed." in mail.text(message)
    assert "This is a test: no threshold was crossed." in mail.html(message)


def test_every_test_is_sent(subscribed):
    budget = make_budget(subscribed)
    for _ in range(2):
        services.send_test(budget=budget, at=AT)

    assert OutboxMessage.objects.count() == 2


def test_without_a_subscription_there_is_nothing_to_test(acme):
    budget = make_budget(acme, amount=Decimal(5))

    with pytest.raises(Conflict, match="no subscription"):
        services.send_test(budget=budget, at=AT)
