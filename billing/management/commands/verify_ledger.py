"""`manage.py verify_ledger`: do events, counters, lines, cells, ledger and seals agree? Exit code 1 and one line each
where they do not."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Customer
from billing.clock import now
from billing.cycle.verify import books


class Command(BaseCommand):
    help = "Check the books. Reads only; customers are checked one after the other, while everything runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--customer", metavar="KEY", help="only this one")
        parser.add_argument(
            "--days", type=int, default=40, help="how far back counters are compared with their events; default 40"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        customers = Customer.objects.order_by("pk")
        if options["customer"]:
            customers = customers.filter(key=options["customer"])
            if not customers:
                raise CommandError(f"There is no customer {options['customer']}.")
        number = 0
        for customer in customers:
            for difference in books(customer, since=now() - timedelta(days=options["days"])):
                self.stdout.write(difference)
                number += 1
        if number:
            raise CommandError(f"{number} differences.")
        self.stdout.write("Events, counters, cells, ledger and seals agree.")
