"""Finding the way in, and staying inside one's own customers."""

import pytest
from django.urls import reverse

from accounts.models import Customer, Membership, Role, User

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}
PAGES = ["overview", "overview-live", "overview-csv", "budget", "budget-edit"]


def test_the_bare_address_leads_to_the_members_customer(client, alice):
    client.force_login(alice)
    assert client.get("/").headers["Location"] == "/c/acme/"


def test_a_member_of_several_comes_back_to_the_one_looked_at_last(client, alice, globex):
    Membership.objects.create(user=alice, customer=globex, role=Role.VIEWER)
    client.force_login(alice)
    assert client.get("/").headers["Location"] == "/c/acme/"
    client.get(reverse("overview", args=["globex"]))
    assert client.get("/").headers["Location"] == "/c/globex/"
    Membership.objects.filter(customer=globex).delete()
    assert client.get("/").headers["Location"] == "/c/acme/"


def test_the_switcher_lists_the_members_customers_and_no_others(client, alice, globex):
    Membership.objects.create(user=alice, customer=globex, role=Role.VIEWER)
    Customer.objects.create(key="initech", name="Initech")
    client.force_login(alice)
    page = client.get(reverse("overview", args=["acme"])).content.decode()
    assert '<a href="/c/globex/">Globex</a>' in page
    assert "Initech" not in page


def test_a_person_without_a_customer_is_told_what_to_do(client, db):
    client.force_login(User.objects.create_user("new@nowhere.test", "correct horse battery"))
    response = client.get("/")
    assert response.status_code == 200
    assert "Ask an owner to invite this address" in response.content.decode()


def test_an_operator_without_a_customer_is_led_to_the_admin(client, olivia):
    client.force_login(olivia)
    assert client.get("/").headers["Location"] == reverse("admin:index")


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_signs_in_and_comes_back(client, acme, name):
    address = reverse(name, args=["acme"])
    assert client.get(address).headers["Location"] == f"/accounts/login/?next={address}"


def test_a_fragment_that_finds_nobody_signed_in_sends_the_whole_page_to_sign_in(client, acme):
    on_page = HTMX | {"HX-Current-URL": "http://testserver/c/acme/?unit=USD"}
    response = client.get(reverse("overview-live", args=["acme"]), headers=on_page)
    assert response.status_code == 401
    assert response.headers["HX-Redirect"] == "/accounts/login/?next=/c/acme/%3Funit%3DUSD"


def test_a_fragment_cannot_send_the_reader_elsewhere(client, acme):
    elsewhere = HTMX | {"HX-Current-URL": "https://elsewhere.test/c/acme/"}
    response = client.get(reverse("overview-live", args=["acme"]), headers=elsewhere)
    assert response.headers["HX-Redirect"] == "/accounts/login/?next=/"


@pytest.mark.parametrize("name", PAGES)
def test_another_customers_pages_do_not_exist(client, acme, charlie, name):
    client.force_login(charlie)
    assert client.get(reverse(name, args=["acme"])).status_code == 404
    assert client.get(reverse(name, args=["nobody"])).status_code == 404


def test_nothing_is_kept_in_caches(client, alice):
    client.force_login(alice)
    assert client.get(reverse("overview", args=["acme"])).headers["Cache-Control"] == "private, no-store"


def test_an_operator_sees_a_customers_page_as_a_viewer_and_is_told_so(client, acme, olivia):
    client.force_login(olivia)
    page = client.get(reverse("overview", args=["acme"])).content.decode()
    assert "You are visiting as an operator." in page
    assert reverse("budget-edit", args=["acme"]) not in page
    assert client.get(reverse("budget-edit", args=["acme"])).status_code == 403
    assert client.get("/").headers["Location"] == reverse("admin:index")  # visiting makes no membership


def test_an_operator_finds_no_customer_where_no_key_can_be(client, olivia):
    client.force_login(olivia)
    assert client.get("/c/%00/").status_code == 404


def test_the_admin_links_a_customer_to_its_page(client, acme, olivia):
    client.force_login(olivia)
    page = client.get(reverse("admin:accounts_customer_change", args=[acme.pk])).content.decode()
    assert 'href="/c/acme/"' in page


def test_staff_without_the_right_to_see_customers_cannot_visit(client, acme):
    client.force_login(User.objects.create_user("temp@vendor.test", "correct horse battery", is_staff=True))
    assert client.get(reverse("overview", args=["acme"])).status_code == 404


@pytest.mark.parametrize("name", ["home", *PAGES])
def test_only_the_form_takes_a_post(client, alice, name):
    client.force_login(alice)
    address = reverse(name, args=[] if name == "home" else ["acme"])
    assert client.post(address).status_code == (422 if name == "budget-edit" else 405)
