"""Calling a command as a user does."""

import sys

import pytest

from shapeloss.cli.main import main


def call(monkeypatch, *arguments):
    """Run a command in this process; returns its exit status or message."""
    monkeypatch.setattr(sys, "argv", ["shapeloss", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
