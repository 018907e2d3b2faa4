"""Sends usage events to Headroom without ever blocking or crashing the program that makes them."""

from headroom_client.client import Client, Stats
from headroom_client.events import Event, Rejection

__all__ = ["Client", "Event", "Rejection", "Stats"]
