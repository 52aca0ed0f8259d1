"""A supervisor in a process of its own: runs the fake worker in the run directory given first, prints nothing, exits
as a command would."""

import sys
from pathlib import Path

from launcher.rundir import RunDirectory
from launcher.supervisor import supervise
from tests.launches import fake_launch

arguments = sys.argv[2:]
prepare = (sys.executable, arguments[1]) if arguments[:1] == ["--prepare"] else ()
run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    outcome = supervise(fake_launch(run, *([] if prepare else arguments), prepare_argv=prepare), run, None)
sys.exit(outcome.exit_code)
