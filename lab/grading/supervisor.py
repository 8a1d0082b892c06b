"""Run a command so that nothing outlives it: `python supervisor.py COMMAND...`, as `sandbox.py` starts it.

The supervisor stands between the process that grades and the command. It ends with either of them, and takes all processes
along that came from the command. It imports only psutil and the standard library.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

import psutil


def main() -> None:
    """Fork, and let the child become the command. Wait for it, kill all processes that came from it, and exit as it did.

    Orphans become this process's children, so that daemons are found (on Linux; other systems hand them to process 1).
    SIGTERM ends everything, and so does the end of the process that started this one.
    """
    grader, command = os.getppid(), sys.argv[1:]
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.execvp(command[0], command)  # noqa: S606

    def end() -> None:
        for kill in (os.killpg, os.kill):  # a group ends at once, however fast its members fork
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(child, signal.SIGKILL)

    def end_with_grader() -> None:
        while os.getppid() == grader:
            time.sleep(0.1)
        end()

    signal.signal(signal.SIGTERM, lambda *_: end())
    threading.Thread(target=end_with_grader, daemon=True).start()
    code = wait_for(child)
    end()
    kill_descendants(psutil.Process())
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(code)


def wait_for(child: int) -> int:
    """A child's exit status, 128 + n if signal n ended it, as bubblewrap says it; orphans that end meanwhile are reaped."""
    while True:
        process, status = os.wait()
        if process == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def descendants(ancestor: psutil.Process) -> list[psutil.Process]:
    """The processes that came from a process; none if it is gone."""
    try:
        return ancestor.children(recursive=True)
    except psutil.Error:
        return []


def kill_descendants(ancestor: psutil.Process) -> None:
    """Kill all descendants of a process. They are stopped first, so that none starts another one meanwhile."""
    stopped: set[psutil.Process] = set()
    while new := set(descendants(ancestor)) - stopped:
        for process in new:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        stopped |= new
    for process in stopped:
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    main()
