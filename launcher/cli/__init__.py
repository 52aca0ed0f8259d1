"""The command line: one small file per command, errors for people, exit codes of `configs.errors.Exit`."""

from __future__ import annotations

from launcher.cli.main import main

__all__ = ["main"]
