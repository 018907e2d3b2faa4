"""Sends usage events to Headroom without ever blocking or crashing the program that makes them."""

from headroom_client.client import Client, Stats
from headroom_client.events import Event, Rejection
from headroom_client.leases import Lease, Spending

__all__ = ["Client", "Event", "Lease", "Rejection", "Spending", "Stats"]
