"""Starts commands by fork, with all that is heavy imported already.

A process that has been killed at a random moment tells nothing if most moments
are spent importing torch.  What is forked is the command line itself, in a
process of its own that can be killed like any other.

    {"argv": [...], "log": "FILE"}  ->  its process id; "largest": bytes that a file may have
    {"wait": process id}            ->  its exit status; below 0: killed by this signal
    {"shell": [...]}                ->  the exit status of another program, such as mount
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback


def serve() -> None:
    import h5py  # noqa: F401
    import zarr.codecs  # noqa: F401

    import pipeline.cli_extract
    import pipeline.cli_train
    import pipeline.extraction
    import pipeline.image_root
    import pipeline.stage_two  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        if "shell" in asked:
            print(subprocess.call(asked["shell"]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            if asked.get("largest"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"],) * 2)
            _run(asked["argv"], asked["log"])
        print(pid, flush=True)


def _run(argv: list[str], log: str) -> None:
    """The command, as in a process of its own; never returns."""
    from pipeline.cli import main

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["lgr-pipe", *argv]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
