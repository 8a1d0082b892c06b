"""A worker process that ends when the process that started it is gone, however that ended.

On its own in a module that imports next to nothing: a worker has it at once.
"""

import os
import threading
import time

SECONDS = 0.5  # between two looks


def end_with(parent: int) -> None:
    """Have this process end soon after the one with this id, which started it, has ended.

    A killed process cannot tell its workers; but the system gives an orphan another parent. Linux can send a signal
    then (PR_SET_PDEATHSIG), other systems cannot: looking now and then works on all of them.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS)
        os._exit(1)  # at once: nobody waits for the run, and what it has written is whole

    threading.Thread(target=watch, daemon=True).start()
