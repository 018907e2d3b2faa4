"""Programs that use the client, in processes of their own: to end, to be killed, to fork."""

import os
import subprocess
import sys
from pathlib import Path

from config.demo import ROOT

BEGIN = """
import logging, os, sys, time
from headroom_client import Client
logging.basicConfig()
url, key, spool = sys.argv[1:]
client = Client(url, key, spool=spool or None, proxies={}, timeout=60, max_age=0.05, close_timeout=2)
def record(*ids):
    for event_id in ids:
        client.record(id=event_id, type="llm.completion", customer="acme", properties={"tokens": 1})
"""


def program(script: str, url: str, spool: Path | str, key: str = "hr_key") -> subprocess.Popen[str]:
    """Runs `script` with a client for the url and a function `record(*ids)`."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + script, url, key, str(spool)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "clients" / "python" / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """Wait for its end, which must be a good one; what it logged."""
    try:
        _, log = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0, log
    return log
