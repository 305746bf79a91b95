"""Runs jobs in processes of their own that need not import anything, and kills them.

``python -m tests.kills.server FOLDER`` has imported everything when it says ``ready``. Then it
reads a request a line, ``{"job", "folder", "after", "at", "delay"}``, forks, and answers with a
line ``{"killed", "code", "seconds", "events"}``. The child is killed ``after`` so many seconds, or
where it changes a file of its folder for the time ``at``: right before, or so many seconds later.
"""

import json
import math
import mmap
import os
import select
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from tests.kills import jobs

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR


def count_events(folder, counter, at, tell):
    """Counts where this process changes files of ``folder``; before one of these calls ``tell``."""
    inside = os.fsencode(folder)

    def hook(event, arguments):
        if event not in CHANGES and not (event == "open" and arguments[2] & WRITING):
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)) or inside not in os.fsencode(path):
            return  # a descriptor
        number = struct.unpack("q", counter[:8])[0] + 1
        counter[:8] = struct.pack("q", number)
        if number == at:
            tell()

    sys.addaudithook(hook)


def child(request, counter, pipe):
    """The job, which ends this process."""

    def tell():
        if "delay" not in request:
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(pipe, b".")

    code = 1
    try:
        folder = Path(request["folder"])
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Lightning writes checkpoints to a temporary file, and moves it: on one disk, at once.
        tempfile.tempdir = str(folder)
        count_events(folder, counter, request.get("at"), tell)
        jobs.run(request["job"], folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(request):
    """The answer to a request."""
    counter, (told, pipe) = mmap.mmap(-1, 8), os.pipe()
    begin = time.monotonic()
    deadline = begin + request.get("after", math.inf)
    pid = os.fork()
    if pid == 0:
        child(request, counter, pipe)
    os.close(pipe)
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([told], [], [], min(left, 60))[0]:
            continue
        if not os.read(told, 1):  # it has ended
            break
        deadline = time.monotonic() + request["delay"]
    else:
        os.kill(pid, signal.SIGKILL)  # no other process has its number until it is waited for
    os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds, events = time.monotonic() - begin, struct.unpack("q", counter[:8])[0]
    return {"killed": code == -signal.SIGKILL, "code": code, "seconds": seconds, "events": events}


def warm_up(folder):
    """Imports what jobs import late, and loads what they compile."""
    for name, job in jobs.JOBS.items():
        own = folder / name
        own.mkdir()
        job.prepare(own)
        jobs.run(name, own)
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/task")) > 1:  # of which a fork would have one
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def main(folder):
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm_up(folder)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
