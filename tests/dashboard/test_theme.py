"""The theme is a cookie, so that the first paint is right."""

import pytest
from django.urls import reverse

pytestmark = pytest.mark.django_db


def test_a_choice_is_kept_and_leads_back_to_the_page(client):
    response = client.post(reverse("theme"), {"theme": "dark", "next": "/accounts/login/?next=/"})
    assert response.headers["Location"] == "/accounts/login/?next=/"
    assert client.cookies["theme"].value == "dark"
    assert b'data-theme="dark"' in client.get("/accounts/login/").content


def test_an_unknown_theme_is_refused_with_the_known_ones(client):
    response = client.post(reverse("theme"), {"theme": "neon"})
    assert response.status_code == 400
    assert b"auto, light or dark" in response.content


def test_a_link_cannot_send_the_reader_elsewhere(client):
    response = client.post(reverse("theme"), {"theme": "dark", "next": "https://elsewhere.test/"})
    assert response.headers["Location"] == "/"


def test_reading_the_address_changes_nothing(client):
    assert client.get(reverse("theme")).status_code == 405


def test_a_cookie_cannot_write_markup_into_the_page(client):
    client.cookies["theme"] = '"><script>alert(1)</script>'
    assert b"<script>alert(1)" not in client.get("/accounts/login/").content
