"""Files in memory and confined programs: what a kill, a core dump or another process of their user gets of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superswarm.errors import Environment, Malformed, TooLarge
from superswarm.io import capacity, confine, linux, memory
from superswarm.io.capacity import available_memory
from superswarm.io.logs import logger
from superswarm.io.memory import MemoryFiles
from tests.leftovers import holding

ROOT = Path(__file__).parents[2]
BEGAN = time.time() - 1
CANARY = bytes(value ^ 0x5A for value in b"canary of files in memory, 3f9c")  # so that no source file holds it
TELL = "CANARY = bytes(value ^ 0x5A for value in b'canary of files in memory, 3f9c')\n"
NOBODY = (
    "import os\nif os.geteuid() == 0:\n os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
)
DUMPABLE = "import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # which a change of user takes away
READY = "import sys; print('ready', flush=True); sys.stdin.read()\n"


@pytest.fixture
def files() -> Iterator[MemoryFiles]:
    with MemoryFiles() as held:
        yield held


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may write to, where a child keeps everything that it keeps."""
    with tempfile.TemporaryDirectory(prefix="superswarm-test-") as name:
        folder = Path(name)
        for part in (folder, folder / "tmp", folder / "home"):
            part.mkdir(exist_ok=True)
            part.chmod(0o777)
        yield folder


def put(files: MemoryFiles, name: str, data: bytes) -> None:
    with files.create(name, len(data)) as file:
        file.write(data)


def start(script: str, place: Path) -> subprocess.Popen[str]:
    """A child of this Python whose temporary, working, home and cache folders all lie in `place`."""
    named = {"HOME": "home", "TMPDIR": "tmp", "XDG_STATE_HOME": "home", "XDG_CACHE_HOME": "home", "HF_HOME": "home"}
    env = os.environ | {key: str(place / value) for key, value in named.items()} | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", TELL + script],
        cwd=place,
        env=env | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def test_what_was_written_is_read_again_as_often_as_asked(files: MemoryFiles) -> None:
    with files.create("b.bin", 6) as file:
        file.write(b"abc")
        file.write(memoryview(b"def"))
    put(files, "a.bin", b"")
    assert files.names == ["a.bin", "b.bin"]
    assert files.size("b.bin") == 6
    with files.open("b.bin") as one, files.open("b.bin") as two:
        assert (one.read(2), two.read(), one.read()) == (b"ab", b"abcdef", b"cdef")
    with pytest.raises(KeyError):
        files.open("c.bin")


def test_the_folder_is_private_has_only_the_named_files_and_goes(files: MemoryFiles) -> None:
    put(files, "a", b"x")
    put(files, "b", b"y")
    folder = files.folder(["b"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert (folder / "b").read_bytes() == b"y"
    files.close()
    files.close()
    assert not folder.exists()
    assert files.names == []


def test_names_may_have_folders(files: MemoryFiles) -> None:
    put(files, "a/b/c", b"x")
    assert (files.folder(["a/b/c"]) / "a" / "b" / "c").read_bytes() == b"x"


def test_nothing_changes_a_file_that_is_filled(files: MemoryFiles) -> None:
    put(files, "a", CANARY)
    path = files.folder(["a"]) / "a"
    for attempt in (path.write_bytes, lambda data: path.open("r+b", buffering=0).write(data)):
        with pytest.raises(OSError, match=r"Operation not permitted|Permission denied"):
            attempt(b"z")
    assert path.read_bytes() == CANARY


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/../../b", "a//b", "a/", "/etc/passwd", "a\0b", "a\nb", "x" * 256, "\udc80"]
)
def test_names_lead_nowhere_else(files: MemoryFiles, name: str) -> None:
    with pytest.raises(Malformed), files.create(name, 1):
        pass


def test_a_name_is_taken_once(files: MemoryFiles) -> None:
    put(files, "a", b"1")
    with pytest.raises(Malformed):
        put(files, "a", b"2")
    with files.open("a") as file:
        assert file.read() == b"1"


@pytest.mark.parametrize(("size", "error"), [(4, Malformed), (2, TooLarge)])
def test_the_announced_size_is_the_size(files: MemoryFiles, size: int, error: type[Exception]) -> None:
    with pytest.raises(error) as caught, files.create("a", size) as file:
        file.write(b"abc")
    assert caught.type is error
    assert files.names == []


def test_a_file_that_fails_half_way_is_not_there(files: MemoryFiles) -> None:
    def fail() -> None:
        with files.create("a", 3) as file:
            file.write(b"ab")
            raise ValueError("cut")

    before = psutil.Process().num_fds()
    with pytest.raises(ValueError, match="cut"):
        fail()
    assert files.names == []
    assert psutil.Process().num_fds() == before


def test_files_are_counted(files: MemoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FILES", 2)
    put(files, "a", b"1")
    put(files, "b", b"1")
    with pytest.raises(TooLarge):
        put(files, "c", b"1")


def test_more_than_the_memory_is_refused_before_any_is_taken(files: MemoryFiles) -> None:
    with pytest.raises(Environment, match="memory is too small"), files.create("a", 2**60):
        pass


@pytest.mark.parametrize("call", ["memfd_create", "write"])
def test_a_kernel_without_memory_is_said(files: MemoryFiles, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(memory.os, call, full)
        with pytest.raises(Environment, match="allocate memory"):
            put(files, "a", b"1")
    assert files.names == []


def test_without_anonymous_files_nothing_is_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path / "nowhere")
    with pytest.raises(Environment, match="only ever held in memory"):
        MemoryFiles()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with pytest.raises(Environment, match="only ever held in memory"):
        MemoryFiles()


def test_what_could_not_be_locked_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "pin", lambda handle, size: None)
    with MemoryFiles() as files:
        assert files.locked
        put(files, "a", b"1")
        assert not files.locked
        with files.open("a") as file:
            assert file.read() == b"1"


def test_a_locked_page_counts_as_locked_until_it_is_released() -> None:
    def locked() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmLck:"))

    before = locked()
    with MemoryFiles() as files:
        put(files, "a", bytes(1 << 20))
        assert locked() - before == (1024 if files.locked else 0)
    assert locked() == before


@given(st.lists(st.binary(max_size=3000), max_size=5), st.integers(0, 20_000))
def test_any_writes_give_the_file_or_an_error(parts: list[bytes], size: int) -> None:
    whole = b"".join(parts)
    with MemoryFiles() as files:
        try:
            with files.create("a", size) as sink:
                for part in parts:
                    sink.write(part)
        except Malformed:
            assert size != len(whole)
            assert files.names == []
        else:
            with files.open("a") as source:
                assert source.read() == whole


# --- attacks -----------------------------------------------------------------------------------------------------

HOLD = (
    "from superswarm.io.memory import MemoryFiles\n"
    "files = MemoryFiles()\n"
    "with files.create('config.json', len(CANARY)) as file: file.write(CANARY)\n"
    "link = files.folder(files.names) / 'config.json'\n"
    "assert link.read_bytes() == CANARY\n"
)


def test_a_killed_process_leaves_no_plaintext(place: Path) -> None:
    child = start(HOLD + READY, place)
    assert told(child) == "ready"
    [folder] = (place / "tmp").iterdir()
    assert not holding([CANARY], place, since=BEGAN)
    kill(child)
    assert not holding([CANARY], place, since=BEGAN)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").readlink().is_relative_to("/proc/self/fd")


def test_the_search_would_find_it(place: Path) -> None:
    child = start("import pathlib; pathlib.Path('home/left').write_bytes(b'x' + CANARY)\n" + READY, place)
    assert told(child) == "ready"
    kill(child)
    assert holding([CANARY], place, since=BEGAN) == [place / "home" / "left"]


CONFINED = "from superswarm.io.confine import confine; confine()\n"
ALLOWED = (
    "import resource\n"
    "most = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
    "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
)


@pytest.mark.parametrize(
    "protection",
    [CONFINED, "from superswarm.io import linux; linux.set_undumpable()\n", CONFINED + DUMPABLE],
    ids=["both", "undumpable", "limit"],
)
def test_an_aborted_process_leaves_no_core(place: Path, protection: str) -> None:
    child = start(ALLOWED + HOLD + protection + "import os; print(os.getpid(), flush=True); os.abort()\n", place)
    assert int(told(child)) == child.pid
    _, status = os.waitpid(child.pid, 0)
    child.returncode = -signal.SIGABRT
    kill(child)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert not holding([CANARY], place, since=BEGAN)


SPY = (
    "import sys\n"
    "from pathlib import Path\n"
    "victim, address = Path('/proc') / sys.argv[1], int(sys.argv[2])\n"
    "def memory():\n"
    "    with (victim / 'mem').open('rb') as file:\n"
    "        file.seek(address)\n"
    "        return file.read(64)\n"
    "def descriptors():\n"
    "    return b''.join(fd.read_bytes() for fd in (victim / 'fd').iterdir() if 'memfd' in str(fd.readlink()))\n"
    "for way in (memory, descriptors):\n"
    "    try:\n"
    "        print(way.__name__, 'read' if CANARY in way() else 'read something')\n"
    "    except PermissionError:\n"
    "        print(way.__name__, 'refused')\n"
)


@pytest.mark.parametrize("confined", [True, False])
def test_another_process_of_the_user_reads_no_memory(place: Path, confined: bool) -> None:
    """Both run as an unprivileged user, since root may read everything. Unconfined, the same attack succeeds."""
    target = "import ctypes; kept = ctypes.create_string_buffer(CANARY)\n"
    shown = "print(ctypes.addressof(kept), flush=True); import sys; sys.stdin.read()\n"
    load = HOLD + CONFINED.partition(";")[0] + "\n"
    child = start(load + NOBODY + DUMPABLE + ("confine()\n" if confined else "") + target + shown, place)
    address = told(child)
    spy = subprocess.run(
        [sys.executable, "-c", TELL + "import pathlib, sys\n" + NOBODY + SPY, str(child.pid), address],
        capture_output=True,
        text=True,
        check=True,
    )
    kill(child)
    if confined:
        assert spy.stdout.split("\n")[:2] == ["memory refused", "descriptors refused"]
    else:
        assert "descriptors read\n" in spy.stdout
        if not yama():
            assert "memory read\n" in spy.stdout


def yama() -> bool:
    """Whether the kernel refuses memory to all but a process's ancestors anyway."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return scope.exists() and scope.read_text().strip() != "0"


def test_a_confined_process_without_privileges_uses_its_own_files(place: Path) -> None:
    """PR_SET_DUMPABLE gives /proc/self to root; a process's own descriptors stay its own."""
    script = "from superswarm.io.memory import MemoryFiles\n" + CONFINED + NOBODY + "confine()\n"
    child = start(
        script + HOLD + "import threading\n"
        "got = []\n"
        "thread = threading.Thread(target=lambda: got.append(link.read_bytes()))\n"
        "thread.start(); thread.join(); assert got == [CANARY]\n" + READY,
        place,
    )
    assert told(child) == "ready"
    kill(child)


# --- confinement -------------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, event: str, **fields: object) -> None:
        self.warnings.append(event)


@pytest.fixture
def mild(monkeypatch: pytest.MonkeyPatch) -> None:
    """`confine` without effect on the tests' own process."""
    monkeypatch.setattr(confine, "confine", lambda: None)
    monkeypatch.setattr(linux, "is_dumpable", lambda: False)


@pytest.mark.usefixtures("mild")
def test_memory_that_may_not_be_locked_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    monkeypatch.setattr(linux, "lock_everything", lambda: False)
    confine.hold_plaintext(heard)  # type: ignore[arg-type]
    assert heard.warnings == ["memory can be swapped out"]


@pytest.mark.usefixtures("mild")
def test_a_program_that_others_can_read_holds_no_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "is_dumpable", lambda: True)
    with pytest.raises(Environment, match="PR_SET_DUMPABLE"):
        confine.hold_plaintext(logger("superswarm.test"))


def test_everything_is_locked_where_that_is_allowed(place: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from superswarm.io import linux\n"
        "locked = linux.lock_everything()\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "kilobytes = next(int(line.split()[1]) for line in lines if line.startswith('VmLck:'))\n"
        "print(linux.may_lock_everything() == locked == (kilobytes > 0), flush=True)\n"
    )
    child = start(script, place)
    assert told(child) == "True"
    kill(child)


# --- how much memory is left ---------------------------------------------------------------------------------------


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_control_group_above_limits_the_memory(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/above/ours\n")
    above = tmp_path / "sys/fs/cgroup/above"
    group(above / "ours", memory__max="max", memory__current=50)
    group(above, memory__max=1000, memory__current=900, memory__stat="anon 500\ninactive_file 300")
    assert available_memory(tmp_path) == 400  # idle file cache makes room
    group(above / "ours", memory__max=60)
    assert available_memory(tmp_path) == 10
    group(above / "ours", memory__current=70)
    assert available_memory(tmp_path) == 0


def test_a_control_group_of_the_older_kind_counts_too(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory,cpu:/docker/abc\n1:pids:/x\n0::/\n")
    group(tmp_path / "sys/fs/cgroup/memory", memory__limit_in_bytes=500, memory__usage_in_bytes=100)
    assert available_memory(tmp_path) == 400  # in a container the mount begins at its own group


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 0
    with pytest.raises(Environment, match="too small for a model"):
        capacity.require_memory(2**60, "a model")
