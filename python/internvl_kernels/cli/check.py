"""Commands that measure and check this machine: bench, verify."""

from __future__ import annotations


def bench() -> None:
    """x"""


def verify() -> None:
    """x"""
