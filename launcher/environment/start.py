"""`python start.py MODULE ARGUMENT...`: what `python -m MODULE` does, from the project root and no other directory.

`-m` puts the working directory first on the path, so a `json.py` or a `launcher` lying where a person happens to be
would be imported instead of the real one.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    here = __file__.rpartition("/")[0]
    root = here.rpartition("/")[0].rpartition("/")[0]
    sys.path[:] = [root, *(path for path in sys.path if path not in {"", here, root})]
    import runpy

    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
