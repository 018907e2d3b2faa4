"""An address that cannot exist is not found; it never reaches the database."""

import pytest

from tests.factories import bearer, make_api_key


@pytest.mark.parametrize("path", ["budgets/%00", "budgets/nothing", "credit-grants/%00/void"])
def test_an_identifier_that_is_none_is_not_found_by_the_api(client, db, path):
    _, secret = make_api_key()

    response = client.get(f"/api/v1/{path}", **bearer(secret))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["team/keys/%00/revoke", "team/invitations/%00/revoke"])
def test_an_identifier_that_is_none_is_not_found_on_a_page(client, alice, path):
    client.force_login(alice)

    assert client.post(f"/c/acme/{path}").status_code == 404
