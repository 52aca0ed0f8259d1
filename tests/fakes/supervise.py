"""A supervisor in a process of its own: runs the fake worker in the run directory given first, prints nothing, exits
as a command would."""

import sys
from pathlib import Path

from launcher.rundir import RunDirectory
from launcher.supervisor import supervise
from tests.launches import fake_launch

run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    outcome = supervise(fake_launch(run, *sys.argv[2:]), run, None)
sys.exit(outcome.exit_code)
