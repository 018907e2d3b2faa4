"""Who may do what, for every address. A route that is not listed here fails the tests; so does a line without a route.

One line is (route as the resolver knows it, method, who may, path, body). The path is needed where the route has
parameters; `{name}` in it comes from world.py. Methods that are not listed must be refused with 405. Everything under
admin/ is for operators without being listed; test_matrix.py walks it.
"""

from accounts.models import Scope
from tests.access.actors import (
    EDITORS,
    EVERYBODY,
    MEMBERS,
    NOWHERE,
    OWNERS,
    SIGNED_IN,
    WITHOUT_SECOND_FACTOR,
    and_own,
    operator_keys,
    own_rows,
)

READ, WRITE, EVENTS = Scope.BILLING_READ, Scope.BILLING_WRITE, Scope.EVENTS_WRITE
TOP_UPS = "c/<str:key>/credits/top-ups"
TEAM = "c/<str:key>/team"
CLOCK = "api/v1/test-clocks/<id:clock_id>"
SUBSCRIPTION = "api/v1/subscriptions/<id:subscription_id>"
VERSION = "api/v1/plans/<str:key>/versions/<int:number>"

BUDGET = {
    "customer": "acme",
    "name": "Monthly",
    "unit": "USD",
    "amount": "100",
    "thresholds": [],
    "recipients": ["owners"],
}

OURS = [
    ("healthz", "GET", EVERYBODY),
    ("readyz", "GET", EVERYBODY),
    ("theme", "POST", EVERYBODY),
    # --- the customer's window
    ("", "GET", SIGNED_IN),
    ("c/<str:key>/", "GET", MEMBERS, "c/acme/"),
    ("c/<str:key>/live", "GET", MEMBERS, "c/acme/live"),
    ("c/<str:key>/spend.csv", "GET", MEMBERS, "c/acme/spend.csv"),
    ("c/<str:key>/credits", "GET", MEMBERS, "c/acme/credits"),
    ("c/<str:key>/credits/live", "GET", MEMBERS, "c/acme/credits/live"),
    ("c/<str:key>/credits.csv", "GET", MEMBERS, "c/acme/credits.csv"),
    ("c/<str:key>/credits/<id:public_id>", "GET", MEMBERS, "c/acme/credits/{transaction}"),
    (TOP_UPS, "GET", MEMBERS, "c/acme/credits/top-ups"),
    (TOP_UPS, "POST", OWNERS, "c/acme/credits/top-ups"),
    (f"{TOP_UPS}/card", "POST", OWNERS, "c/acme/credits/top-ups/card"),
    (f"{TOP_UPS}/automatic", "POST", OWNERS, "c/acme/credits/top-ups/automatic"),
    (f"{TOP_UPS}/<id:public_id>", "GET", MEMBERS, "c/acme/credits/top-ups/{top_up}"),
    (f"{TOP_UPS}/<id:public_id>/pay", "POST", OWNERS, "c/acme/credits/top-ups/{top_up}/pay"),
    (f"{TOP_UPS}/<id:public_id>/cancel", "POST", OWNERS, "c/acme/credits/top-ups/{top_up}/cancel"),
    ("c/<str:key>/plan", "GET", MEMBERS, "c/acme/plan"),
    ("c/<str:key>/plan/live", "GET", MEMBERS, "c/acme/plan/live"),
    ("c/<str:key>/plan/lines/<path:address>", "GET", MEMBERS, "c/acme/plan/lines/{line}"),
    ("c/<str:key>/event", "GET", MEMBERS, "c/acme/event?id={event}"),
    ("c/<str:key>/budget", "GET", MEMBERS, "c/acme/budget"),
    ("c/<str:key>/budget/edit", "GET", EDITORS, "c/acme/budget/edit"),
    ("c/<str:key>/budget/edit", "POST", EDITORS, "c/acme/budget/edit"),
    ("c/<str:key>/budget/new", "GET", EDITORS, "c/acme/budget/new"),
    ("c/<str:key>/budget/new", "POST", EDITORS, "c/acme/budget/new"),
    ("c/<str:key>/budget/<id:public_id>/edit", "GET", EDITORS, "c/acme/budget/{budget}/edit"),
    ("c/<str:key>/budget/<id:public_id>/edit", "POST", EDITORS, "c/acme/budget/{budget}/edit"),
    ("c/<str:key>/budget/<id:public_id>/test", "POST", EDITORS, "c/acme/budget/{budget}/test"),
    ("c/<str:key>/budget/<id:public_id>/remove", "POST", EDITORS, "c/acme/budget/{budget}/remove"),
    # --- joining a customer
    ("c/<str:key>/team", "GET", MEMBERS, "c/acme/team"),
    ("c/<str:key>/team/invitations", "POST", OWNERS, "c/acme/team/invitations"),
    (f"{TEAM}/invitations/<id:public_id>/revoke", "POST", OWNERS, "c/acme/team/invitations/{invited}/revoke"),
    (f"{TEAM}/members/<int:member>/role", "POST", OWNERS, "c/acme/team/members/{member}/role"),
    (f"{TEAM}/members/<int:member>/remove", "POST", OWNERS, "c/acme/team/members/{member}/remove"),
    ("c/<str:key>/team/keys", "POST", OWNERS, "c/acme/team/keys"),
    (f"{TEAM}/keys/<id:public_id>/revoke", "POST", OWNERS, "c/acme/team/keys/{key}/revoke"),
    ("accounts/invitations/<str:token>", "GET", EVERYBODY, "accounts/invitations/{invitation}"),
    ("accounts/invitations/<str:token>", "POST", EVERYBODY, "accounts/invitations/{invitation}"),
    # --- API: customers
    ("api/v1/customers", "GET", operator_keys(READ)),
    ("api/v1/customers", "POST", operator_keys(WRITE)),
    ("api/v1/customers/<str:key>", "GET", and_own(READ), "api/v1/customers/acme"),
    ("api/v1/customers/<str:key>", "PATCH", operator_keys(WRITE), "api/v1/customers/acme"),
    # --- API: metering
    ("api/v1/events", "GET", own_rows(READ)),
    ("api/v1/events", "POST", operator_keys(EVENTS)),
    ("api/v1/events/void", "POST", operator_keys(WRITE)),
    ("api/v1/events/amend", "POST", operator_keys(WRITE)),
    ("api/v1/unmatched", "GET", operator_keys(READ)),
    ("api/v1/refused", "GET", operator_keys(READ)),
    ("api/v1/meters", "GET", operator_keys(READ)),
    ("api/v1/meters", "POST", operator_keys(WRITE)),
    ("api/v1/meters/<str:key>", "GET", operator_keys(READ), "api/v1/meters/{meter}"),
    ("api/v1/meters/<str:key>", "PATCH", operator_keys(WRITE), "api/v1/meters/{meter}"),
    # --- API: rating
    ("api/v1/customers/<str:key>/usage", "GET", and_own(READ), "api/v1/customers/acme/usage"),
    ("api/v1/price-simulations", "POST", operator_keys(READ)),
    # --- API: credits
    ("api/v1/customers/<str:key>/spend", "GET", and_own(READ), "api/v1/customers/acme/spend"),
    ("api/v1/customers/<str:key>/credits", "GET", and_own(READ), "api/v1/customers/acme/credits"),
    ("api/v1/customers/<str:key>/ledger", "GET", and_own(READ), "api/v1/customers/acme/ledger"),
    ("api/v1/credit-grants", "POST", operator_keys(WRITE)),
    ("api/v1/credit-grants/<id:public_id>/void", "POST", operator_keys(WRITE), "api/v1/credit-grants/{grant}/void"),
    # --- API: cycle
    ("api/v1/events/receipt", "GET", own_rows(READ)),
    ("api/v1/subscriptions", "GET", own_rows(READ)),
    ("api/v1/subscriptions", "POST", operator_keys(WRITE)),
    ("api/v1/customers/<str:key>/upcoming-invoice", "GET", and_own(READ), "api/v1/customers/acme/upcoming-invoice"),
    ("api/v1/customers/<str:key>/bridge", "GET", and_own(READ), "api/v1/customers/acme/bridge"),
    (f"{SUBSCRIPTION}/change", "POST", operator_keys(WRITE), "api/v1/subscriptions/{subscription}/change"),
    (f"{SUBSCRIPTION}/cancel", "POST", operator_keys(WRITE), "api/v1/subscriptions/{subscription}/cancel"),
    (f"{SUBSCRIPTION}/resume", "POST", operator_keys(WRITE), "api/v1/subscriptions/{subscription}/resume"),
    ("api/v1/test-clocks", "GET", operator_keys(READ)),
    ("api/v1/test-clocks", "POST", operator_keys(WRITE)),
    (CLOCK, "GET", operator_keys(READ), "api/v1/test-clocks/{clock}"),
    (CLOCK, "DELETE", operator_keys(WRITE), "api/v1/test-clocks/{clock}"),
    (f"{CLOCK}/advance", "POST", operator_keys(WRITE), "api/v1/test-clocks/{clock}/advance"),
    (f"{CLOCK}/outbox", "GET", operator_keys(READ), "api/v1/test-clocks/{clock}/outbox"),
    # --- API: budgets
    ("api/v1/customers/<str:key>/forecast", "GET", and_own(READ), "api/v1/customers/acme/forecast"),
    ("api/v1/budgets", "GET", own_rows(READ)),
    ("api/v1/budgets", "POST", and_own(WRITE), "api/v1/budgets", BUDGET),
    ("api/v1/budgets/<id:budget_id>", "GET", and_own(READ), "api/v1/budgets/{budget}"),
    ("api/v1/budgets/<id:budget_id>", "PATCH", and_own(WRITE), "api/v1/budgets/{budget}"),
    ("api/v1/budgets/<id:budget_id>", "DELETE", and_own(WRITE), "api/v1/budgets/{budget}"),
    ("api/v1/budgets/<id:budget_id>/test", "POST", and_own(WRITE), "api/v1/budgets/{budget}/test"),
    ("api/v1/alerts", "GET", own_rows(READ)),
    # --- API: top-ups
    ("api/v1/customers/<str:key>/top-ups", "GET", and_own(READ), "api/v1/customers/acme/top-ups"),
    ("api/v1/customers/<str:key>/top-ups", "POST", operator_keys(WRITE), "api/v1/customers/acme/top-ups"),
    ("api/v1/webhooks/stripe", "POST", EVERYBODY),
    # --- API: authorizations
    ("api/v1/authorizations", "POST", operator_keys(WRITE)),
    ("api/v1/authorizations/<id:public_id>", "GET", operator_keys(READ), "api/v1/authorizations/{hold}"),
    (
        "api/v1/authorizations/<id:public_id>/capture",
        "POST",
        operator_keys(WRITE),
        "api/v1/authorizations/{hold}/capture",
    ),
    (
        "api/v1/authorizations/<id:public_id>/release",
        "POST",
        operator_keys(WRITE),
        "api/v1/authorizations/{hold}/release",
    ),
    # --- API: pricing
    ("api/v1/plans", "GET", operator_keys(READ)),
    ("api/v1/plans", "POST", operator_keys(WRITE)),
    ("api/v1/plans/<str:key>/versions", "GET", operator_keys(READ), "api/v1/plans/{plan}/versions"),
    ("api/v1/plans/<str:key>/versions", "POST", operator_keys(WRITE), "api/v1/plans/{plan}/versions"),
    (f"{VERSION}", "GET", operator_keys(READ), "api/v1/plans/{plan}/versions/1"),
    (f"{VERSION}", "PATCH", operator_keys(WRITE), "api/v1/plans/{plan}/versions/1"),
    (f"{VERSION}/publish", "POST", operator_keys(WRITE), "api/v1/plans/{plan}/versions/1/publish"),
    (f"{VERSION}/preview", "POST", operator_keys(READ), "api/v1/plans/{plan}/versions/1/preview", {"customer": "acme"}),
    (f"{VERSION}/preview", "PUT", operator_keys(READ), "api/v1/plans/{plan}/versions/1/preview", {"version": 1}),
    (f"{VERSION}/retire", "POST", operator_keys(WRITE), "api/v1/plans/{plan}/versions/1/retire"),
]

# Pages that libraries bring: only GET is tried.
LIBRARIES = [
    ("api/v1/schema/", EVERYBODY),
    ("api/v1/docs/", EVERYBODY),
    ("api/v1/", NOWHERE),
    ("accounts/login/", EVERYBODY),
    ("accounts/logout/", EVERYBODY),
    ("accounts/inactive/", EVERYBODY),
    ("accounts/signup/", EVERYBODY),
    ("accounts/password/reset/", EVERYBODY),
    ("accounts/password/reset/done/", EVERYBODY),
    ("accounts/password/reset/key/done/", EVERYBODY),
    ("accounts/password/change/", SIGNED_IN),
    ("accounts/password/set/", SIGNED_IN),
    ("accounts/email/", SIGNED_IN),
    ("accounts/reauthenticate/", SIGNED_IN),
    ("accounts/2fa/", SIGNED_IN),
    ("accounts/2fa/reauthenticate/", SIGNED_IN),
    ("accounts/2fa/totp/activate/", SIGNED_IN),
    ("accounts/2fa/authenticate/", SIGNED_IN),
    ("accounts/2fa/totp/deactivate/", WITHOUT_SECOND_FACTOR),
    ("accounts/2fa/recovery-codes/", WITHOUT_SECOND_FACTOR),
    ("accounts/2fa/recovery-codes/generate/", SIGNED_IN),
    ("accounts/2fa/recovery-codes/download/", WITHOUT_SECOND_FACTOR),
    ("accounts/login/code/confirm/", SIGNED_IN),
    ("accounts/confirm-email/", EVERYBODY),
    (r"accounts/^confirm-email/(?P<key>[-:\w]+)/$", EVERYBODY, "accounts/confirm-email/none/"),
    (
        r"accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        EVERYBODY,
        "accounts/password/reset/key/1-none/",
    ),
]
