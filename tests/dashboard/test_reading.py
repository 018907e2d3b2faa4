"""All numbers of a page come from one state of the database."""

from threading import Thread

from django.db import connection

from accounts.models import Customer
from billing.reads import snapshot


def test_what_commits_while_a_page_is_read_is_not_half_in_it(committed):
    def add_customer():
        Customer.objects.create(key="late", name="Late")
        connection.close()

    with snapshot():
        assert Customer.objects.count() == 0
        writer = Thread(target=add_customer)
        writer.start()
        writer.join()
        assert Customer.objects.count() == 0
    assert Customer.objects.count() == 1
