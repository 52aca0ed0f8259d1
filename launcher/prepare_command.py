"""`prepare`: runs the preparation of a config's data in the foreground, with progress, without starting any rank."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.processes import dies_with_me
from configs.errors import ConfigError, Exit, UserError
from launcher.anew import describe
from launcher.channel import LineReader, readable
from launcher.console.observer import make_observer
from launcher.environment_vars import prepare_environment
from launcher.files import last_lines
from launcher.launching import check_continuation, first_view, write_run_files
from launcher.protocol import Observer
from launcher.request import Prepared
from launcher.root_cause import last_exception
from launcher.rundir import RunDirectory

LOG = "prepare.log"
TICK_S = 0.25
KILL_GRACE_S = 5.0


def prepare(prepared: Prepared) -> RunDirectory:
    """Prepares the data of a run and leaves prepared.json in its directory. Raises UserError with what went wrong."""
    check_continuation(prepared)
    if prepared.plan.anew:
        raise ConfigError(
            f"prepare changes nothing that was trained, and with this config {describe(prepared.plan.anew, ())[0]}",
            "./run.sh train with the same arguments does both; or choose another --name",
        )
    run = RunDirectory.create(prepared.run.path.parent, prepared.config.name)
    with run.lock():
        write_run_files(prepared, run)
        observer = make_observer(first_view(prepared))
        try:
            code, error = _run(prepared, run.path / LOG, observer)
        finally:
            with contextlib.suppress(OSError, ValueError):
                observer.close()
    if code != 0:
        raise _failure(code, error, run.path / LOG)
    return run


def _run(prepared: Prepared, log: Path, observer: Observer) -> tuple[int, Mapping[str, Any]]:
    launch = prepared.plan.launch
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        child = subprocess.Popen(
            launch.prepare_argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=handle,
            cwd=launch.root,
            env=prepare_environment(os.environ, launch.env, launch.prepare_env_names),
            start_new_session=True,
            preexec_fn=dies_with_me(),  # noqa: PLW1509 - this process has one thread
        )
    finally:
        os.close(handle)
    try:
        error = _forward(child, observer)
        return child.wait(), error
    finally:
        _end(child)


def _forward(child: subprocess.Popen[bytes], observer: Observer) -> Mapping[str, Any]:
    """Passes events to the observer until the command has ended; returns its last error event."""
    if child.stdout is None:
        raise ValueError("the command's stdout is no pipe")
    lines = LineReader(child.stdout.fileno())
    error: Mapping[str, Any] = {}
    while not lines.eof:
        if readable((lines.fd,), TICK_S):
            for event in lines.read():
                if event.get("type") == "error":
                    error = event
                else:
                    observer.on_event(event)
        observer.tick()
    return error


def _end(child: subprocess.Popen[bytes]) -> None:
    """Leaves no process behind, also after Ctrl-C."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(KILL_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failure(code: int, error: Mapping[str, Any], log: Path) -> UserError:
    if error:
        failure = UserError(str(error.get("message") or "preparation failed"), str(error.get("hint") or ""))
        code = error["exit_code"] if isinstance(error.get("exit_code"), int) else code
    else:
        ended = f"killed ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        failure = UserError(f"preparation failed: {last_exception(last_lines(log)) or ended}", f"read {log}")
    failure.code = Exit(code) if code in set(Exit) and code else Exit.FAILED
    return failure
