"""Fixtures for agents: each test runs in both ways of calling tools."""

from apps_agent import clerk, no_waiting, speech, world

__all__ = ["clerk", "no_waiting", "speech", "world"]
