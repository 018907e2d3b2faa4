"""A real Chromium against a real web process, on the test database, with ticks as the worker runs them.

Whatever a page complains about (a violated Content-Security-Policy, an error in the console) fails its test.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from threading import Event, Thread

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from accounts.models import User
from billing import clock
from billing.cycle.services import tick
from tests import processes
from tests.house import House, make_offer

TICK_SECONDS = 0.2
PATIENCE_MS = 30_000  # that pages move is tested here; how fast, the benchmarks measure
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  complain(`${event.effectiveDirective} refused ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`));
"""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        missing = "No Chromium found. Install one (apt-get install chromium) to run the tests of the pages."
        if os.environ.get("HEADROOM_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        # Playwright keeps an event loop in this thread; the ORM is only ever used between its calls.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def address(django_db_setup) -> Iterator[str]:
    """Where the web process answers: the same command as in the demo, not in debug."""
    web = processes.web("browser-web")
    with processes.running(web):
        yield web.url


@pytest.fixture
def ticks(committed) -> Iterator[None]:
    """What beat and worker do, in a thread."""
    ended = Event()

    def run() -> None:
        while not ended.wait(TICK_SECONDS):
            tick(at=clock.now())
        connection.close()

    thread = Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()


@dataclass
class Site:
    """The running site, and a way to open its pages as somebody."""

    url: str
    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(
        self,
        path: str,
        *,
        user: User | None = None,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        javascript: bool = True,
    ) -> Page:
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
            base_url=self.url,
        )
        self.contexts.append(context)
        context.expose_binding("complain", lambda _, text: self.complaints.append(text))
        context.add_init_script(REPORT_VIOLATIONS)
        context.on("console", self._listen)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        if user:
            context.add_cookies([{"name": "sessionid", "value": session_of(user), "url": self.url}])
        page = context.new_page()
        page.goto(path)
        return page

    def forgive(self, *words: str) -> None:
        """Complaints with one of these words were caused on purpose."""
        self.complaints = [text for text in self.complaints if not any(word in text for word in words)]

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")


def session_of(user: User) -> str:
    """The key of a new session in which the user is signed in."""
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return session.session_key


@pytest.fixture
def site(committed, address, chromium) -> Iterator[Site]:
    site = Site(address, chromium)
    yield site
    for context in site.contexts:
        context.close()
    assert site.complaints == []


# --- the cast, committed ------------------------------------------------------------------------------------------


@pytest.fixture
def db(committed) -> None:
    """The web process must see what a test writes, so everything that asks for the database gets real commits."""


@pytest.fixture
def house(acme) -> House:
    return House(acme).subscribe(make_offer())


@pytest.fixture
def busy(house) -> House:
    return house.use_some()
