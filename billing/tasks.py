"""Celery finds the rooms' tasks here."""
