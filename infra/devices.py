"""GPUs: what there is, and who holds which.

`nvidia-smi` says what there is; torch is not asked, because a process that has asked it keeps a context on each GPU.
A lease is one JSON file for each GPU in HOME/leases, named by its UUID. Every change is made under one `flock`. A
lease is free again when its holder lets go, has ended (process and start time), or has not renewed it in time; whoever
takes it draws a higher token, so that a holder who wakes up too late finds that it has lost it. Times are of the
kernel's monotonic clock, which every container of a machine shares and no change of the date moves.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from infra.errors import InfraError, SettingsError
from infra.settings import Settings

Kind = Literal["auto", "cpu", "cuda"]
Tell = Callable[[str], None]

QUERY = ("index", "uuid", "name", "memory.total", "memory.free")
QUERY_SECONDS = 30
"""A driver that is waking up takes seconds."""
POLL_SECONDS = 1.0
TELL_SECONDS = 30.0
"""Between two messages of one who waits."""
MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """One GPU. Memory is in bytes."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True)
class Held:
    """What a lease's file says."""

    uuid: str
    holder: str
    token: int
    pid: int
    started: int | None
    """When the process began, in ticks since boot, so that another one with the same number is not taken for it."""
    namespace: str
    """In which the number of the process means something."""
    boot: str
    expires: float
    """On the monotonic clock of this boot."""


@dataclass(frozen=True)
class Lease:
    """Devices that are held. `visible` is what CUDA_VISIBLE_DEVICES has to be; empty hides all GPUs."""

    kind: Literal["cpu", "cuda"]
    visible: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    lost: threading.Event = field(default_factory=threading.Event, repr=False)

    def check(self) -> None:
        """Raises InfraError where another one has taken the devices; call it as often as you like."""
        if self.lost.is_set():
            raise InfraError(
                f"lease of {', '.join(self.visible)}",
                found="it was not renewed in time, and another run has taken it",
                expected="a process that is never stopped for longer than FLYWHEEL_LEASE_SECONDS",
                remedy="start the run again; it goes on from its last checkpoint",
            )


def devices(settings: Settings) -> list[Device]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES admits, in its order. None where nvidia-smi is not found.

    Raises InfraError where nvidia-smi is there and fails, as with a driver that does not match its kernel module.
    """
    found = _query() if shutil.which("nvidia-smi") else []
    if settings.visible_devices is None:
        return found
    chosen: list[Device] = []
    for name in settings.visible_devices.split(","):
        device = _named(name.strip(), found)
        if device is None or device in chosen:
            return chosen if device is None else []  # as CUDA does
        chosen.append(device)
    return chosen


def resolve(settings: Settings, kind: Kind, count: int) -> list[Device]:
    """The devices that a run may lease; none for the CPU. `auto` takes GPUs where there are any.

    Raises SettingsError where they can never be had on this machine.
    """
    if kind == "cpu":
        return []
    found = devices(settings)
    if not found and kind == "auto":
        return []
    if len(found) < count:
        masked = "" if settings.visible_devices is None else f" (CUDA_VISIBLE_DEVICES={settings.visible_devices})"
        raise SettingsError(
            f"resources.accelerator: {kind}, accelerators: {count} on {os.uname().nodename}",
            found=f"{len(found)} GPUs{masked}" if found or masked else "no GPU: nvidia-smi finds none",
            expected=f"{count} GPU{'s' * (count > 1)}",
            remedy="give resources.work_pool a pool whose workers have them, or set resources.accelerator to cpu"
            if not found
            else f"set resources.accelerators to {len(found)} at most",
        )
    return found


@contextmanager
def lease(settings: Settings, kind: Kind, count: int, holder: str, tell: Tell = lambda line: None) -> Iterator[Lease]:
    """Hold `count` GPUs while the context lasts, all or none; waits, and tells, while others hold them.

    Raises SettingsError at once where this machine does not have them.
    """
    if not resolve(settings, kind, count):
        yield Lease("cpu")
        return
    book = Book(settings)
    held = _wait(settings, book, count, kind, holder, tell)
    lost, done = threading.Event(), threading.Event()
    beat = threading.Thread(target=_renew, args=(book, held, lost, done), daemon=True)
    beat.start()
    try:
        yield Lease("cuda", tuple(h.uuid for h in held), tuple(h.token for h in held), lost)
    finally:
        done.set()
        beat.join()
        book.release(held)


class Book:
    """The leases of one HOME. Each method is one step under the lock."""

    def __init__(self, settings: Settings) -> None:
        self.root, self.seconds = settings.leases, settings.lease_seconds

    def holders(self) -> dict[str, Held]:
        """UUID → the lease, of those that hold."""
        found = (self._read(file) for file in sorted(self.root.glob("*.json")))
        return {held.uuid: held for held in found if held is not None and _holds(held)}

    def take(self, wanted: Sequence[Device], count: int, holder: str) -> list[Held]:
        """Take `count` of these devices, those with most free memory first; nothing where so many are not free."""
        with self._locked():
            taken = self.holders()
            free = sorted((d for d in wanted if d.uuid not in taken), key=lambda d: (-d.memory_free, d.index))[:count]
            if len(free) < count:
                return []
            me: dict[str, Any] = {"holder": holder, "token": self._next_token(), "pid": os.getpid()}
            me |= {"started": _started(os.getpid()), "namespace": _namespace(), "boot": _boot()}
            me |= {"expires": time.monotonic() + self.seconds}
            held = [Held(uuid=d.uuid, **me) for d in sorted(free, key=lambda d: d.index)]
            for one in held:
                self._write(one)
            return held

    def renew(self, held: Sequence[Held]) -> bool:
        """Hold on; False where one of them is another's by now."""
        with self._locked():
            if not all(self._is_ours(one) for one in held):
                return False
            for one in held:
                self._write(replace(one, expires=time.monotonic() + self.seconds))
            return True

    def release(self, held: Sequence[Held]) -> None:
        """Let go of what is still ours."""
        with self._locked():
            for one in filter(self._is_ours, held):
                self._file(one.uuid).unlink()

    def _is_ours(self, one: Held) -> bool:
        written = self._read(self._file(one.uuid))
        return written is not None and written.token == one.token

    def _file(self, uuid: str) -> Path:
        return self.root / f"{uuid.replace('/', '_')}.json"

    def _read(self, file: Path) -> Held | None:
        try:
            return Held(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):  # a file that is no lease holds nothing
            return None

    def _write(self, held: Held) -> None:
        self._replace(self._file(held.uuid), asdict(held))

    def _next_token(self) -> int:
        """Ever higher numbers. A counter that is lost goes on above every lease there is."""
        file, last = self.root / "token", 0
        with suppress(OSError, ValueError):
            last = int(file.read_text())
        written = filter(None, map(self._read, self.root.glob("*.json")))
        token = max([last, *(held.token for held in written)]) + 1
        self._replace(file, token)
        return token

    def _replace(self, file: Path, value: Any) -> None:
        draft = file.with_name(f".{file.name}")
        draft.write_text(json.dumps(value))
        draft.rename(file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _wait(settings: Settings, book: Book, count: int, kind: Kind, holder: str, tell: Tell) -> list[Held]:
    """Take the devices as soon as they are free."""
    told = -TELL_SECONDS
    while True:
        wanted = resolve(settings, kind, count)  # asked anew: a GPU may be lost, and free memory changes
        if held := book.take(wanted, count, holder):
            return held
        if time.monotonic() - told >= TELL_SECONDS:
            told, taken = time.monotonic(), book.holders()
            by = sorted({taken[d.uuid].holder for d in wanted if d.uuid in taken})
            tell(f"waiting for {count} of {len(wanted)} GPUs, held by {', '.join(by)}")
        time.sleep(POLL_SECONDS)


def _renew(book: Book, held: Sequence[Held], lost: threading.Event, done: threading.Event) -> None:
    """Renew a lease, five times in its life, until it is let go or lost. A store that hiccups is asked again."""
    while not done.wait(book.seconds / 5):
        with suppress(OSError):
            if not book.renew(held):
                lost.set()
                return


def _holds(held: Held) -> bool:
    """Whether a lease is in time and its process alive, as far as can be seen from here."""
    if held.boot != _boot() or held.expires <= time.monotonic():
        return False
    if held.namespace != _namespace():
        return True  # a process of another container: its silence will tell
    return _started(held.pid) == held.started


def _started(pid: int) -> int | None:
    """When a process began, in ticks since boot; None where there is none, or only what is left of one."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(rest[18])


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _boot() -> str:
    """Of this start of the machine; a lease of an earlier one means nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _query() -> list[Device]:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=QUERY_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _broken(str(error)) from error
    if done.returncode:
        # With a driver and no GPU it says so and fails
        if "No devices were found" in done.stdout + done.stderr:
            return []
        raise _broken((done.stdout + done.stderr).strip()[-500:])
    try:
        return [_device(row) for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if row]
    except ValueError as error:
        raise _broken(done.stdout.strip()[-500:]) from error


def _device(row: Sequence[str]) -> Device:
    index, uuid, name, total, free = (cell.strip() for cell in row)
    return Device(int(index), uuid, name, _bytes(total), _bytes(free))


def _bytes(mebibytes: str) -> int:
    """Some GPUs share the memory of the machine, and say `[N/A]`."""
    return int(mebibytes) * MIB if mebibytes.isdecimal() else 0


def _named(name: str, found: Sequence[Device]) -> Device | None:
    """A device by its index or by the beginning of its UUID; a part of a MIG GPU stands for itself."""
    if name.isdecimal():
        return next((d for d in found if d.index == int(name)), None)
    if name.startswith("MIG-"):
        return Device(len(found), name, "MIG", 0, 0)
    fitting = [d for d in found if name.startswith("GPU-") and d.uuid.startswith(name)]
    return fitting[0] if len(fitting) == 1 else None


def _broken(found: str) -> InfraError:
    return InfraError(
        "nvidia-smi",
        found=found,
        expected="a list of GPUs",
        remedy="mend the driver, or set CUDA_VISIBLE_DEVICES= to train on the CPU",
    )
