"""Confine this process, then run Python in it: `python confine.py SETTINGS ARGUMENTS...`, as `supervisor.py` starts it.

SETTINGS is JSON with the fields of `Settings`; ARGUMENTS are what follows `python` on a command line. This runs before
anything of a submission does, in each isolation, so it imports only the standard library. Inside bubblewrap, resource limits
are all that is left to set. Elsewhere the process gives up for good whatever this system lets it give up.
"""

import contextlib
import ctypes
import json
import os
import resource
import runpy
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple, NoReturn

USERS = range(61_184, 65_520)  # ids that no account has; systemd takes those of its dynamic users from here
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Settings(NamedTuple):
    """What the process that runs submitted code may do. Paths are absolute, sizes in bytes."""

    folder: str  # the only place to write to
    system: list[str]  # may be read: the interpreter, its packages and libraries ...
    hidden: list[str]  # ... but not these parts of it
    reads: list[str]  # may be read as well: the project's code, and what the caller names
    lists: list[str]  # folders whose names may be read: imports look for their modules there
    seconds: float
    memory: int
    disk: int
    processes: int
    threads: int  # of this user, running before
    layers: list[str]  # of "namespaces", "user", "landlock", "hook", as far as the system has them; empty in bubblewrap


def main() -> None:
    """Confine, then run."""
    del sys.path[0]  # this script's folder: its modules are imported as lab.grading's
    settings, arguments = Settings(**json.loads(sys.argv[1])), sys.argv[2:]
    os.chdir(settings.folder)
    limit_resources(settings)
    if settings.layers:
        os.environ["SANDBOX_LAYERS"] = ", ".join(give_up(settings))
    run(arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Resource limits, in each isolation
# ---------------------------------------------------------------------------------------------------------------------


def limit_resources(settings: Settings) -> None:
    """Set what the system can limit per process. The watcher in the grading process counts the sums over processes.

    These limits lie above the watcher's, which says which limit was passed: they catch what is faster than the watcher.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 256)
    _limit(resource.RLIMIT_FSIZE, settings.disk + 2**20)
    _limit(resource.RLIMIT_DATA, 2 * settings.memory + 2**30)
    _limit(resource.RLIMIT_CPU, int(4 * settings.seconds) + 10)
    _limit(resource.RLIMIT_NPROC, 4 * settings.processes + settings.threads)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


# ---------------------------------------------------------------------------------------------------------------------
# Without bubblewrap: what a process can give up by itself
# ---------------------------------------------------------------------------------------------------------------------


def give_up(settings: Settings) -> list[str]:
    """Give up rights for good, as far as this system can, and return the names of the layers that are in force."""
    layers = []
    if sys.platform == "linux":
        if "namespaces" in settings.layers and leave_network():
            layers.append("no network")
        if "user" in settings.layers and os.geteuid() == 0:
            layers.append(become_nobody(settings))
            _prctl(_PR_SET_DUMPABLE, 1)  # changing users took it: the watcher looks into /proc
        _end_with_supervisor()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # programs with the setuid bit run without it
        if "landlock" in settings.layers and (version := landlock(settings)):
            layers.append(f"Landlock {version}")
    if "hook" in settings.layers:
        add_hook(settings)
        layers.append("audit hook")
    return layers


_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38


def _succeed(result: int, what: str) -> int:
    """The result of a call of the C library, or OSError with the reason."""
    if result == -1:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, value: int) -> None:
    _succeed(_libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))), f"prctl {option}")


def _end_with_supervisor() -> None:
    supervisor = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def leave_network() -> bool:
    """Enter new namespaces of network and of shared memory, where there is nothing; return whether the system allows it."""
    new_user, new_ipc, new_network = 0x10000000, 0x08000000, 0x40000000
    flags = new_ipc | new_network | (0 if os.geteuid() == 0 else new_user)
    return _libc.unshare(flags) == 0


def become_nobody(settings: Settings) -> str:
    """From root, become a user that owns nothing but the folder; return a description of the result.

    Each sandbox has a user of its own, so that submissions that run side by side do not reach each other. Files that this
    user could not read, such as an interpreter below /root, stay readable by CAP_DAC_READ_SEARCH (Landlock then says which).
    Without this capability, as in most containers, the process stays root where it must, and loses all capabilities.
    """
    user = USERS[os.getppid() % len(USERS)]
    needed = [settings.folder, *settings.system, *settings.reads]
    may_read_all = bool(_effective_capabilities() & _DAC_READ_SEARCH)
    if not may_read_all and not _can_read(user, needed):
        _keep_capabilities(0)
        return "root without capabilities"
    give_folder(settings.folder, user, user)
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _keep_capabilities(_DAC_READ_SEARCH if may_read_all else 0)
    return "user of its own"


_DAC_READ_SEARCH = 1 << 2


def _effective_capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _keep_capabilities(kept: int) -> None:
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    data = struct.pack("6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; then the higher 32 bits
    _succeed(_libc.capset(header, data), "capset")


def _can_read(user: int, paths: list[str]) -> bool:
    os.seteuid(user)
    try:
        return all(os.access(path, os.R_OK, effective_ids=True) for path in paths)
    finally:
        os.seteuid(0)


def give_folder(folder: str, user: int, group: int) -> None:
    """Make a user the owner of a folder and of all in it."""
    os.chown(folder, user, group)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(place, name), user, group, follow_symlinks=False)


# Landlock: https://docs.kernel.org/userspace-api/landlock.html
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same system calls on all architectures
_EXECUTE, _WRITE, _READ, _LIST = (1 << bit for bit in range(4))
_TRUNCATE = 1 << 14
_MAKE_DEVICES = 1 << 6 | 1 << 11
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_PROCESS_FILES = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu")


def landlock(settings: Settings) -> int:
    """Let the kernel refuse other files, TCP, and signals to processes outside; return Landlock's version, 0 if none.

    Version 4 restricts TCP, version 6 signals and abstract Unix sockets.
    """
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return 0
    handled = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    tcp, scope = 3 if version >= 4 else 0, 3 if version >= 6 else 0
    attributes = struct.pack("3Q", handled, tcp, scope)
    rules = _succeed(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset")

    def allow(path: str | Path, rights: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            rights &= handled if Path(path).is_dir() else handled & _OF_FILES
            place = os.open(path, os.O_PATH)
            rule = struct.pack("=Qi", rights, place)
            _succeed(_libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"landlock_add_rule for {path}")
            os.close(place)

    hidden = [Path(path).resolve() for path in settings.hidden]
    for root in settings.system:
        for part in without(Path(root).resolve(), hidden):
            allow(part, _READ | _EXECUTE | _LIST)
    for path in (*settings.system, *settings.lists):
        if Path(path).is_dir():
            allow(path, _LIST)  # names only, also where something in it is hidden
    for path in (*settings.reads, *_PROCESS_FILES):
        allow(path, _READ | _EXECUTE | _LIST)
    for path in DEVICES:
        allow(path, _READ | _WRITE | _TRUNCATE)
    allow(settings.folder, handled & ~_MAKE_DEVICES)
    _succeed(_libc.syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)
    return int(version)


def without(root: Path, hidden: list[Path]) -> Iterator[Path]:
    """The root; or, if something below it is hidden, all parts of it that have nothing hidden. Paths are resolved."""
    if not any(path.is_relative_to(root) for path in hidden):
        yield root
    elif root not in hidden:
        for part in root.iterdir():
            if not part.is_symlink():  # where it leads has its own rule, or none
                yield from without(part, hidden)


# ---------------------------------------------------------------------------------------------------------------------
# The audit hook, for systems that have nothing better: it sees what Python does, not what C does
# ---------------------------------------------------------------------------------------------------------------------

_REFUSED = {
    "socket.__new__": "a socket",
    "socket.getaddrinfo": "a look-up in the network",
    "socket.gethostbyname": "a look-up in the network",
    "subprocess.Popen": "another program",
    "os.exec": "another program",
    "os.posix_spawn": "another program",
    "os.system": "another program",
    "os.forkpty": "a terminal",
    "resource.setrlimit": "other limits",
    "resource.prlimit": "other limits",
}
_CHANGES = {  # events, and how many of their first arguments are paths that are changed
    "sqlite3.connect": 1,
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), 1),
    **dict.fromkeys(("os.rename", "os.link"), 2),
}


def add_hook(settings: Settings) -> None:
    """Refuse, for good, what a submission has no reason to do, as PermissionError."""
    may_change, may_read = _file_rules(settings)
    refused, changes, me, ours = dict(_REFUSED), dict(_CHANGES), os.getpid, (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, values: tuple) -> None:
        if event == "open":
            path, _, flags = values
            if isinstance(path, int):
                return
            if flags & ours and not may_change(path):
                _refuse(f"to write to {path!r}")
            if not may_read(path):
                _refuse(f"to open {path!r}")
        elif event in refused:
            _refuse(refused[event])
        elif event in changes:
            for path in values[: changes[event]]:
                if not isinstance(path, int) and not may_change(path):
                    _refuse(f"to change {path!r}")
        elif event == "os.symlink" and not may_change(values[1]):
            _refuse(f"to change {values[1]!r}")
        elif event in ("os.kill", "os.killpg") and values[0] != me():
            _refuse("a signal to another process")

    sys.addaudithook(hook)


def _refuse(what: str) -> NoReturn:
    raise PermissionError(f"the sandbox refuses {what}")


def _file_rules(settings: Settings) -> tuple[Callable, Callable]:
    """Two functions of a path: whether it may be changed, and whether it may be read."""
    real, separator, decode = os.path.realpath, os.sep, os.fsdecode

    def places(paths: list[str]) -> tuple[str, ...]:
        return tuple(real(path) for path in paths)

    folder = places([settings.folder, *DEVICES])
    reads = places([*settings.reads, *_PROCESS_FILES])
    system, hidden = places(settings.system), places(settings.hidden)

    def below(path: str, roots: tuple[str, ...]) -> bool:
        return any(path == root or path.startswith(root + separator) for root in roots)

    def may_change(path: str | bytes) -> bool:
        return below(real(decode(path)), folder)

    def may_read(path: str | bytes) -> bool:
        path = real(decode(path))
        return below(path, folder) or below(path, reads) or (below(path, system) and not below(path, hidden))

    return may_change, may_read


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def run(arguments: list[str]) -> None:
    """Run what `python ARGUMENTS` runs: `-m MODULE ...`, `-c CODE ...` or `FILE ...`; the folder is not on the path."""
    sys.excepthook = _print_traceback
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.modules["__main__"] = module = ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), module.__dict__)  # noqa: S102
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as usual, less what lies above the submission's code."""
    while trace and trace.tb_next and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


if __name__ == "__main__":
    main()
