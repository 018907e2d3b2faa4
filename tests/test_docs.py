"""The documents are true: commands run and answer as printed, links lead somewhere, lists are whole."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.demo import ROOT
from tests.faults.test_demo import Run
from tests.processes import wait_until_gone

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("clients/*/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
# What is read from the environment but is no setting of ours.
NOT_OURS = {"MAKELEVEL", "DJANGO_SETTINGS_MODULE"}
PATIENCE_SECONDS = 60


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks: (language, content)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Each `sh` block, with the `json` block that follows it at once: the answer it shows."""
    found = blocks(page)
    following = [*found[1:], ("", "")]
    return [
        (content, after if kind == "json" else None)
        for (language, content), (kind, after) in zip(found, following, strict=True)
        if language == "sh"
    ]


def shows(shown: Any, real: Any) -> bool:
    """Whether a printed answer is true of a real one: fields may be left out, … stands for anything."""
    if isinstance(shown, dict):
        return isinstance(real, dict) and all(name in real and shows(shown[name], real[name]) for name in shown)
    if isinstance(shown, list):
        return isinstance(real, list) and len(shown) == len(real) and all(map(shows, shown, real))
    if isinstance(shown, str) and "…" in shown:
        pattern = ".*".join(map(re.escape, shown.split("…")))
        return isinstance(real, str) and re.fullmatch(pattern, real) is not None
    return type(shown) is type(real) and shown == real


class Shell:
    """A person's shell: what one block sets, the next one uses."""

    END = "--- end of block ---"

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, block: str) -> str:
        """What the block prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{block}\nprintf '\\n{self.END}\\n'\n")
        self.process.stdin.flush()
        lines = iter(self.process.stdout.readline, "")
        return "".join(line for line in iter(lines.__next__, f"{self.END}\n")).strip()

    def end(self) -> None:
        self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where a person stands who runs `make demo`: its data is in var/."""
    if shutil.which("curl") is None:
        pytest.skip("There is no curl, with which the documents' commands are run.")
    with tempfile.TemporaryDirectory(prefix="headroom-") as name:
        var = Path(name).resolve() / "var"
        run = Run(var)
        run.ready()
        yield var.parent
        run.end()
        wait_until_gone(var)


@pytest.fixture
def shell(folder) -> Iterator[Shell]:
    shell = Shell(folder)
    yield shell
    shell.end()


@pytest.mark.servers
def test_the_api_tour_answers_as_printed(shell):
    tour = examples(ROOT / "docs" / "api.md")
    assert len(tour) > 15

    for block, printed in tour:
        if printed is None:
            assert shell.run(block) == ""
            continue
        shown, asks_only = json.loads(printed), not re.search(r" -d | -X ", block)
        answer = shell.run(block)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while asks_only and not shows(shown, json.loads(answer)) and time.monotonic() < deadline:
            time.sleep(0.2)  # counted, settled and delivered a moment after it was accepted
            answer = shell.run(block)
        assert shows(shown, json.loads(answer)), f"{block}\nanswers\n{answer}\nand not\n{printed}"


@pytest.mark.servers
def test_the_event_of_the_readme_costs_what_it_says(folder, shell):
    ((block, _),) = examples(ROOT / "README.md")
    said = re.search(r"rises by (\d+) dollars", (ROOT / "README.md").read_text())
    assert said is not None
    before = spend(folder)

    assert json.loads(shell.run(block))["accepted"] == 1

    deadline = time.monotonic() + PATIENCE_SECONDS
    while spend(folder) == before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert spend(folder) - before == Decimal(said[1])


def spend(folder: Path) -> Decimal:
    """What Acme has spent in its billing period."""
    demo = json.loads((folder / "var" / "demo.json").read_text())
    answer = httpx.get(
        f"{demo['url']}/api/v1/customers/acme/spend?granularity=total",
        headers={"Authorization": f"Bearer {demo['operator_api_key']}"},
        timeout=60,
        trust_env=False,
    )
    return Decimal(answer.json()["total"])


def test_every_link_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r'(?:\]\(|src=")([^)"\s]+)', page.read_text()):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_glossary_explains_each_word_once():
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = Counter(word.strip("*` ") for row in rows for word in row.split(","))

    assert len(words) > 30
    assert {word: number for word, number in words.items() if number > 1} == {}


def test_the_list_of_variables_is_whole():
    listed = set(re.findall(r"^# (\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read: set[str] = set()
    for source in sorted(ROOT.glob("config/*.py")):
        code = source.read_text()
        read |= set(re.findall(r'\benv\.\w+\(\s*"([A-Z_]+)"', code))
        read |= set(re.findall(r'\benviron(?:\.get\(|\[|\.setdefault\()\s*"([A-Z_]+)"', code))

    assert listed == read - NOT_OURS
