"""A million events, each sent three times, while everything that runs is killed at random; then the books are checked.

    make chaos [EVENTS=200000] [KILLS=50] [SECONDS=240] [SEED=...] [VAR=var/chaos]

Eight processes send events with known ids, shuffled, and write each acknowledgement to disk before they go on. Web
(all of it, or one of its processes), worker, beat, PostgreSQL (immediate stop) and Valkey are killed and started
again. Afterwards nothing that was acknowledged may be missing, nothing may be there twice, and every counter must be
the sum of the raw rows. SECONDS bounds the sending, outages included: what was not sent and who was not killed by then
is left out, and the report says so. The run fails when that leaves too little to prove anything.
"""

import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import django

ROOT = Path(__file__).resolve().parents[2]
os.environ["VAR"] = os.environ.get("VAR") or str(ROOT / "var" / "chaos")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("SECRET_KEY", "only-for-chaos-on-this-machine-0123456789-abcdefghijklmnopq")
os.environ |= {"DEBUG": "0", "LOG_LEVEL": "WARNING", "DATABASE_POOL_SIZE": "0"}
for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"):
    os.environ.pop(name, None)  # the servers are killed: they must be ours
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connections  # noqa: E402

from tests import processes  # noqa: E402
from tests.chaos import checks, load, world  # noqa: E402
from tests.chaos.storm import Kill, Plan, Report, Storm, Victim  # noqa: E402
from tests.chaos.victims import EmbeddedServer, WebWorker  # noqa: E402

# No client notices when worker, beat or Valkey die, and most requests wait until PostgreSQL is back.
VICTIMS = {"web": 60, "web process": 10, "postgres": 14, "worker": 8, "beat": 2, "valkey": 6}
SENDERS = 8
DRAIN_SECONDS = 120


def main() -> int:
    plan = Plan(
        seed=int(os.environ.get("SEED") or secrets.randbelow(10**6)),
        events=int(os.environ.get("EVENTS") or 200_000),
        kills=int(os.environ.get("KILLS") or 50),
        senders=SENDERS,
        seconds=float(os.environ.get("SECONDS") or 240),
        victims=VICTIMS,
    )
    print(f"seed {plan.seed}: {plan.events:,} events x {load.TIMES}, {plan.kills} kills, at most {plan.seconds:.0f} s")
    with ExitStack() as ending:
        report = _storm(plan, ending)
        drained = _drain()
        problems = [*report.problems(), *_told(plan, report), *_check(report)]
    print(f"counted: everything, {drained:.1f} s after the last answer")
    for problem in problems[:20]:
        print(f"WRONG: {problem}")
    print(f"{len(problems)} problems" if problems else "lost 0, double 0, counters = sums of rows")
    return 1 if problems else 0


def _storm(plan: Plan, ending: ExitStack) -> Report:
    var = settings.VAR
    servers = {
        "postgres": EmbeddedServer("postgres", var, signal.SIGQUIT),
        "valkey": EmbeddedServer("valkey", var, signal.SIGKILL),
    }
    for server in servers.values():
        server.start()
        ending.callback(server.stack.close)
    _make_database()
    shutil.rmtree(var / "mail", ignore_errors=True)
    begun = datetime.now(UTC)
    secret = world.create(begun)
    connections.close_all()
    web, worker, beat = processes.web(), processes.worker(), processes.beat()
    ending.enter_context(processes.running(web, worker, beat))
    victims: dict[str, Victim] = {
        **servers,
        "web": web,
        "web process": WebWorker(web, Random(plan.seed)),
        "worker": worker,
        "beat": beat,
    }
    storm = Storm(plan, victims, url=web.url, secret=secret, begun=begun, folder=var)
    return storm.run()


def _make_database() -> None:
    name = connections["owner"].creation.create_test_db(verbosity=0, autoclobber=True)
    connections["default"].settings_dict["NAME"] = settings.DATABASES["default"]["NAME"] = name


def _drain() -> float:
    """Seconds until everything is folded."""
    began = time.monotonic()
    while checks.pending():
        if time.monotonic() > began + DRAIN_SECONDS:
            break
        time.sleep(0.2)
    return time.monotonic() - began


def _told(plan: Plan, report: Report) -> list[str]:
    """Say what happened; what falls short of the rules of the game is a problem."""
    asked = load.TIMES * plan.events
    answers = ", ".join(f"{how} {n:,}" for how, n in sorted(report.outcomes.items()))
    print(f"kills: {_counted(report.kills)} of {plan.kills}; with requests in flight: {report.kills_in_flight}")
    print(f"  a client saw its request break at {_counted(report.kills_felt)}")
    print(f"  ended by themselves and were started again: {dict(report.ended_by_themselves) or 'none'}")
    print(f"requests: {answers}; batches given up: {report.given_up:,}")
    print(f"events: {report.sent_events:,} of {asked:,} answered in {report.seconds:.0f} s: {dict(report.accepted)}")
    if report.sent_events < asked or len(report.kills) < plan.kills:
        print(
            f"left out: {1 - report.sent_events / asked:.0%} of the events and {plan.kills - len(report.kills)} kills "
            f"in {plan.seconds:.0f} s (batches that were given up are among them)"
        )
    return _too_little(plan, report)


def _too_little(plan: Plan, report: Report) -> list[str]:
    problems = []
    if report.kills_in_flight * 2 < plan.kills:
        problems.append(
            f"only {report.kills_in_flight} of {plan.kills} kills met a request in flight, fewer than half: "
            f"{report.outcomes['ok']} requests were answered in {plan.seconds:.0f} s. Give it more SECONDS"
        )
    if len(report.kills_felt) * 2 < len(report.kills):
        problems.append(f"only {len(report.kills_felt)} of {len(report.kills)} kills broke a request, fewer than half")
    return problems


def _counted(kills: Sequence[Kill]) -> str:
    victims = [kill.victim for kill in kills]
    return f"{len(kills)} (" + ", ".join(f"{name} {victims.count(name)}" for name in VICTIMS) + ")"


def _check(report: Report) -> list[str]:
    stored = checks.stored_numbers()
    print(f"distinct events: {len(report.acknowledged):,} acknowledged, {len(stored):,} stored")
    if pending := checks.pending():
        return [f"{pending} deltas are still not folded after {DRAIN_SECONDS} s"]
    twice = report.accepted["accepted"] - len(stored)
    return [f"{twice} events were answered as accepted twice"] * (twice > 0) + checks.all_of(
        report.acknowledged, stored
    )


if __name__ == "__main__":
    sys.exit(main())
