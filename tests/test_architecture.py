"""The house keeps its order: foreign keys point the way imports do, and the application has only its rights."""

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection

ROOMS = [
    "accounts",
    "notifications",
    "metering",
    "pricing",
    "subscriptions",
    "rating",
    "credits",
    "budgets",
    "authorizations",
    "topups",
    "revenue",
    "cycle",
]


def room(model) -> int:
    parts = model.__module__.split(".")
    return ROOMS.index(parts[1] if parts[0] == "billing" else parts[0])


def our_models():
    return [model for app in ("accounts", "billing") for model in apps.get_app_config(app).get_models()]


def test_a_foreign_key_points_to_the_same_room_or_an_earlier_one():
    wrong = [
        f"{model.__name__}.{field.name} -> {field.related_model.__name__}"
        for model in our_models()
        for field in model._meta.get_fields()
        if field.many_to_one and field.related_model in our_models() and room(field.related_model) > room(model)
    ]
    assert wrong == []


def test_the_dashboard_owns_no_tables():
    assert list(apps.get_app_config("dashboard").get_models()) == []


@pytest.mark.django_db
def test_the_application_is_not_the_owner_of_its_tables():
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableowner = current_user FROM pg_tables WHERE tablename = 'billing_ledgerentry'")
        assert cursor.fetchone() == (False,)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "table",
    [
        "billing_usageevent",
        "billing_eventcorrection",
        "billing_ledgertransaction",
        "billing_ledgerentry",
        "billing_alert",
    ],
)
def test_the_application_may_add_and_read_facts_but_not_change_them(table):
    with connection.cursor() as cursor:
        rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]
        cursor.execute(
            "SELECT array_agg(has_table_privilege(%s, name) ORDER BY n)"
            " FROM unnest(%s::text[]) WITH ORDINALITY AS wanted(name, n)",
            [table, rights],
        )
        assert cursor.fetchone() == ([True, True, False, False, False],)


@pytest.mark.django_db
def test_partitions_of_the_events_are_out_of_the_applications_reach():
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT count(*), count(*) FILTER (WHERE has_table_privilege(inhrelid, 'INSERT, UPDATE, DELETE'))
            FROM pg_inherits WHERE inhparent = 'billing_usageevent'::regclass""")
        partitions, open_ones = cursor.fetchone()
    assert partitions >= 5
    assert open_ones == 0


def test_no_action_of_the_admin_asks_the_database_before_it_is_migrated():
    """unfold checks a permission that is named by its codename with a query, before every command."""
    actions = [
        f"{type(one).__name__}.{action.method.__name__}"
        for one in admin.site._registry.values()
        for action in (
            *one._get_base_actions_list(),
            *one._get_base_actions_detail(),
            *one._get_base_actions_row(),
            *one._get_base_actions_submit_line(),
        )
        if any("." in name for name in getattr(action.method, "allowed_permissions", ()))
    ]
    assert actions == []
