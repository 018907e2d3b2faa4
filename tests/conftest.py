"""Real PostgreSQL and Valkey, two database roles, and the cast that every test knows.

Tables are made by the owner; tests act as the application, with its rights.
"""

import os
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connections, transaction

from accounts.models import Customer, Membership, Role, User
from billing.pricing.queries import forget_published
from config import embedded

# People's passwords are hashed slowly on purpose; tests make hundreds of people.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def servers() -> Iterator[None]:
    """PostgreSQL and Valkey of the environment, or embedded ones for the length of the run."""
    with embedded.running(settings.VAR, embedded.wanted(os.environ)):
        yield


@pytest.fixture(scope="session")
def django_db_setup(servers, django_db_blocker) -> None:
    """A fresh database: migrated as the owner, used as the application. It stays for a look after a failure."""
    with django_db_blocker.unblock():
        name = connections["owner"].creation.create_test_db(verbosity=0, autoclobber=True)
    connections["default"].settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = name


@pytest.fixture(scope="module")
def shared(django_db_setup, django_db_blocker) -> Iterator[None]:
    """A transaction around the tests of a file, for fixtures of its module: made once, found anew by each test."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def committed(django_db_setup, django_db_blocker) -> Iterator[None]:
    """A database in which commits are real, for threads, processes and deferred constraints; emptied afterwards.

    Django's own transactional fixture empties tables as the application, which has no right to.
    """
    with django_db_blocker.unblock():
        yield
        for connection in connections.all(initialized_only=True):
            connection.close()
        empty_tables()


def empty_tables() -> None:
    owner = connections["owner"]
    kept = {"django_migrations", "django_content_type", "auth_permission"}
    with owner.cursor() as cursor:
        tables = set(owner.introspection.table_names(cursor)) - kept
        names = ", ".join(map(owner.ops.quote_name, sorted(tables)))
        cursor.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
    owner.close()
    forget_published()  # numbers begin anew


def as_owner(sql: str) -> None:
    """Do what only the owner of the database could do: damage that checks must find."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(sql)
    connections["owner"].close()


PASSWORD = "correct horse battery"


@pytest.fixture
def acme(db) -> Customer:
    return Customer.objects.create(key="acme", name="Acme", timezone="Europe/Berlin", email="ap@acme.test")


@pytest.fixture
def globex(db) -> Customer:
    return Customer.objects.create(key="globex", name="Globex", email="ap@globex.test")


def member(customer: Customer, name: str, role: Role) -> User:
    user = User.objects.create_user(f"{name}@{customer.key}.test", PASSWORD, name=name.capitalize())
    Membership.objects.create(user=user, customer=customer, role=role)
    return user


@pytest.fixture
def alice(acme: Customer) -> User:
    """Owner of Acme."""
    return member(acme, "alice", Role.OWNER)


@pytest.fixture
def bob(acme: Customer) -> User:
    """Viewer of Acme."""
    return member(acme, "bob", Role.VIEWER)


@pytest.fixture
def charlie(globex: Customer) -> User:
    """Owner of another customer, Globex."""
    return member(globex, "charlie", Role.OWNER)


@pytest.fixture
def olivia(db) -> User:
    """The vendor's operator."""
    return User.objects.create_superuser("olivia@vendor.test", PASSWORD, name="Olivia")
