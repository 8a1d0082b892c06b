"""Let freed memory stay with the process: it is needed again for the next picture."""

import ctypes
from contextlib import suppress

# glibc's mallopt: its parameters, and the bytes that they are set to
TRIM_THRESHOLD, TRIM = -1, 32 * 1024 * 1024  # free memory above which it goes back to the system
MMAP_THRESHOLD, MMAP = -3, 4 * 1024 * 1024  # size above which an array is mapped, and unmapped when freed


def keep_freed_memory() -> None:
    """Keep up to 32 MiB of freed memory, where the C library is glibc.

    By default, glibc returns the memory of a picture's arrays to the system after each prediction, and the next one
    takes as long for getting it back, page by page, as for finding the digit.
    """
    with suppress(AttributeError, OSError, TypeError):  # other C libraries
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, TRIM)
        mallopt(MMAP_THRESHOLD, MMAP)
