"""Let a worker process exit when its parent process is gone, however the parent ended.

This is a module of its own because it imports almost nothing, so a worker loads it immediately.
"""

import os
import threading
import time

SECONDS = 0.5  # between two checks


def end_with(parent: int) -> None:
    """Exit this process soon after its parent process, whose id is `parent`, has ended.

    A killed process cannot notify its workers, but the system gives an orphan another parent. Linux can send a signal
    then (PR_SET_PDEATHSIG), other systems cannot. Polling works on all of them.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS)
        os._exit(1)  # immediately: nobody waits for the run, and its files are complete

    threading.Thread(target=watch, daemon=True).start()
