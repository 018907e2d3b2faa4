"""Hypothesis: no deadline, because a busy machine is no failing test."""

from hypothesis import settings

settings.register_profile("headroom", deadline=None)
settings.load_profile("headroom")
