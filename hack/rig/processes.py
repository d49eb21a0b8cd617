"""Child processes of the kit: each in a group of its own, logged to a file, watched, and never left behind."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from rig import warden
from rig.waiting import Hopeless

TAIL_LINES = 12
LISTENING = "0A"
STOP_SECONDS = 10


class ChildDied(Hopeless):
    """A process of the kit ended by itself; the message holds the tail of its log."""


class PortTaken(Hopeless):
    """Somebody else listens on a port that was free a moment ago: start again on fresh ones."""


class Child:
    """One process of the kit.

    `port` is the one that it must listen on itself (0: none). The death of an `essential` one is a failure of the rig.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log_path: Path,
        *,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        essential: bool = True,
    ) -> None:
        self.name = name
        self.essential = essential
        self.command = [str(word) for word in command]
        self.log_path = log_path
        self.port = port
        self.env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self.env},
            )

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ChildDied(f"{self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative the number of the signal that ended it."""
        return self._process.poll() if self._process else None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self, patience_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and SIGKILL when patience ends. Returns the exit code."""
        self.signal(signal.SIGTERM)
        return self._end(patience_seconds)

    def kill(self) -> int:
        self.signal(signal.SIGKILL)
        return self._end(STOP_SECONDS)

    def _end(self, patience_seconds: float) -> int:
        if self._process is None:
            return 0
        try:
            return self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self._process.wait()

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raise `ChildDied`, or `PortTaken` where that is why, if the process has ended."""
        if self.exit_code is None:
            return
        tail = self.log_tail()
        if "address already in use" in tail:
            raise PortTaken(f"{self.name}: port {self.port}")
        raise ChildDied(f"{self.name} ended with code {self.exit_code}; the tail of {self.log_path}:\n{tail}")

    def listening(self) -> bool:
        """Whether the port is open and this very process holds it. Raises `PortTaken` where another one does."""
        self.check()
        inode = listener_inode(self.port)
        if inode is None:
            return False
        if inode not in socket_inodes(self.pid):
            raise PortTaken(f"{self.name}: port {self.port} belongs to another process")
        return True


def listener_inode(port: int) -> str | None:
    """Inode of the socket that listens on a TCP port of this machine, from /proc/net."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                return words[9]
    return None


def socket_inodes(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(link.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free together a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]


class Nursery:
    """A folder and the processes that live with it; both are gone when the owner is, however it ended."""

    def __init__(self) -> None:
        home = Path(tempfile.gettempdir()) / f"penstock-rig-{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        sweep(home)
        self.directory = home / f"{os.getpid()}-{start_time(os.getpid())}-{uuid.uuid4().hex[:8]}"
        self.directory.mkdir(mode=0o700)
        self.children: dict[str, Child] = {}
        self._warden = subprocess.Popen(
            [sys.executable, "-I", warden.__file__, str(self.directory)], stdin=subprocess.PIPE, start_new_session=True
        )

    def spawn(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        essential: bool = True,
    ) -> Child:
        """Start a child under a name that is unique among those that run; its log is `<name>.log` in the folder."""
        child = Child(name, command, self.directory / f"{name}.log", port=port, env=env, essential=essential)
        child.start()
        self.children[name] = child
        self._tell(child.pid)
        return child

    def restart(self, child: Child) -> None:
        """Stop a child that still runs and start it again with the same command, port and log."""
        self._tell(-child.pid)
        child.stop()
        child.start()
        self._tell(child.pid)

    def release(self, child: Child) -> None:
        """Forget a child that has ended."""
        self._tell(-child.pid)
        self.children.pop(child.name, None)

    def _tell(self, number: int) -> None:
        if self._warden.stdin:
            self._warden.stdin.write(f"{number}\n".encode())
            self._warden.stdin.flush()

    def check(self) -> None:
        """Raise `ChildDied` if an essential child has ended."""
        for child in list(self.children.values()):
            if child.essential:
                child.check()

    def close(self) -> None:
        """Kill every child and remove the folder."""
        for child in self.children.values():
            child.signal(signal.SIGKILL)
        for child in list(self.children.values()):
            child.kill()
            self.release(child)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._warden.stdin:
            self._warden.stdin.close()
        self._warden.wait()


def start_time(pid: int) -> int:
    """Kernel ticks since boot at which a process started; with the pid it names a process for good. 0: no process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(words[19])


def sweep(home: Path) -> None:
    """Remove the folders of owners that are gone, and kill what still runs with such a folder on its command line."""
    for folder in home.iterdir():
        pid, _, rest = folder.name.partition("-")
        if not pid.isdigit() or start_time(int(pid)) == int(rest.partition("-")[0]):
            continue
        for process in running_with(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def running_with(folder: Path) -> list[int]:
    """Processes whose command line names a file in `folder`; the wardens, which have the bare folder, are left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found
