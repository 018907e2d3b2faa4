"""`manage.py verify_ledger`: do events, counters, lines, cells, ledger and seals agree? Exit code 1 and one line each
where they do not. Late differences that nobody is billed for are told too; they are no fault of the books."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Q

from accounts.models import Customer
from billing.clock import now
from billing.credits.billed import unbilled
from billing.credits.models import BilledLine
from billing.cycle.verify import books
from billing.money import plain


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
            for line in unbilled(Q(segment__period__customer=customer)):
                self.stdout.write(_unbilled_in_words(customer, line))
        if number:
            raise CommandError(f"{number} differences.")
        self.stdout.write("Events, counters, cells, ledger and seals agree.")


def _unbilled_in_words(customer: Customer, line: BilledLine) -> str:
    since, until = line.segment.starts_at, line.segment.ends_at
    used = f"{plain(line.amount)} {line.unit} of {line.price.key} from {since:%Y-%m-%d} to {until:%Y-%m-%d}"
    return f"nobody is billed for what came after the end of {customer.key}: {used}"
