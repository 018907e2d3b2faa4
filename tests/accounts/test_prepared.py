"""Statements that are sent together and planned once."""

import pytest
from django.db import DataError, transaction
from hypothesis import given
from hypothesis import strategies as st

from accounts.prepared import array, prepared, together

pytestmark = pytest.mark.django_db

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(texts | st.none()))
def test_the_server_reads_an_array_as_it_was(values):
    with prepared() as cursor:
        cursor.execute("SELECT %s::text[]", [array(values)])
        assert cursor.fetchone() == (values,)


def test_statements_are_answered_in_one_round_trip():
    with together() as send:
        first, second = send("SELECT %(a)s::int", {"a": 1}), send("SELECT %(a)s::int + 1", {"a": 1})
    assert (first.fetchall(), second.fetchall()) == ([(1,)], [(2,)])


def test_what_the_database_refuses_is_an_error_of_django():
    with pytest.raises(DataError), transaction.atomic(), together() as send:
        send("SELECT %(a)s::int", {"a": "one"})
