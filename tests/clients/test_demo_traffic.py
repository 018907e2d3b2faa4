"""The demo's traffic goes through the client."""

import json
import signal
import subprocess
import sys
import time

from config.demo import ROOT


def test_it_sends_until_it_is_stopped_and_leaves_nothing(server, tmp_path):
    demo = tmp_path / "demo.json"
    demo.write_text(json.dumps({"url": server.url, "operator_api_key": "hr_key"}))
    traffic = subprocess.Popen(
        [sys.executable, "manage.py", "demo_traffic", "--demo", str(demo)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(server.requests) < 3:
        assert traffic.poll() is None, traffic.stdout.read()
        time.sleep(0.05)

    traffic.send_signal(signal.SIGTERM)
    printed, _ = traffic.communicate(timeout=30)

    assert traffic.returncode == 0, printed
    assert {event["customer"] for event in server.stored.values()} <= {
        "acme",
        "acme-labs",
        "globex",
        "callisto",
        "pixelforge",
        "papertrail",
        "deskly",
    }
    assert server.requests[0].headers["Authorization"] == "Bearer hr_key"
    assert list((tmp_path / "traffic").iterdir()) == []
