"""Seccomp: from here on the kernel answers system calls that a parser has no business with by "not permitted".

No sockets, no new processes and programs, no signals to others, no tracing, no devices and pipes, no change of modes
(setuid), limits, name spaces or mounts. x86-64 and AArch64; on other processors nothing happens.
Source: https://docs.kernel.org/userspace-api/seccomp_filter.html and linux/audit.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine → its mark, and the column of the numbers below."""
_REFUSED = {
    "socket": (41, 198), "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "setrlimit": (160, 164),
    "setpriority": (141, 140), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430),
    "open_tree": (428, 428), "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217),
    "io_uring_setup": (425, 425), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
}  # fmt: skip
_SANDBOX = (
    "socket", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_getfd", "ptrace", "process_vm_readv",
    "process_vm_writev", "mknod", "mknodat", "setpriority", "shmget", "semget", "msgget", "mq_open", "unshare", "setns",
    "mount", "umount2", "fsopen", "open_tree", "bpf", "keyctl", "add_key", "io_uring_setup", "userfaultfd",
    "perf_event_open",
)  # fmt: skip
"""What is refused to programs in a sandbox too, which may start processes and change what is theirs."""
_SANDBOX_ALONE = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "chroot": (161, 51), "pivot_root": (155, 41),
    "fsconfig": (431, 431), "fsmount": (432, 432), "move_mount": (429, 429), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "request_key": (249, 218), "syslog": (103, 116), "personality": (135, 92), "quotactl": (179, 60),
}  # fmt: skip
"""And what takes memory that no limit counts, looks for ways out, or has had more holes than uses."""
_KILL, _CLONE, _PRLIMIT = ((62, 129), (234, 131)), (56, 220), (302, 261)
_CLONE3 = 435

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _NOT_PERMITTED, _NOT_KNOWN = 0x7FFF0000, 0x00050001, 0x00050026
_NUMBER, _ARCHITECTURE, _FIRST, _THIRD, _THIRD_HIGH = 0, 4, 16, 32, 36
"""Offsets in `struct seccomp_data`, of a little-endian machine."""
_THREAD, _OTHER_ABI = 0x00010000, 0x40000000
_NAME_SPACES = 0x7E020000
"""Flags of clone that make new ones."""

_CAPABILITIES = struct.pack("Ii", 0x20080522, 0)
"""The header of capget and capset: their third version, for this process."""
_READING_ANYTHING = 1 << 1 | 1 << 2
"""Root may read what belongs to others; nothing else is left of its powers."""

Instruction = tuple[int, int, int, int]


def confine() -> bool:
    """Give up all of the above for good, and root's powers; False where that cannot be done."""
    if not sys.platform.startswith("linux") or platform.machine() not in _ARCHITECTURES:
        return False
    code = b"".join(struct.pack("HBBI", *step) for step in _program())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    kept = _READING_ANYTHING & struct.unpack("I", _capabilities(libc)[4:8])[0]
    libc.capset(_CAPABILITIES, struct.pack("6I", kept, kept, 0, 0, 0, 0))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which filters are for root alone
    return bool(libc.prctl(22, 2, program, 0, 0) == 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def for_sandbox() -> bytes:
    """The filter for programs in a sandbox, which may have processes but no name spaces of their own, as bubblewrap
    reads it; empty for a processor that is not known here."""
    if platform.machine() not in _ARCHITECTURES:
        return b""
    _, column = _ARCHITECTURES[platform.machine()]
    refuse, allow = (_RETURN, 0, 0, _NOT_PERMITTED), (_RETURN, 0, 0, _ALLOW)
    steps = _first_steps()
    for numbers in (*(_REFUSED[name] for name in _SANDBOX), *_SANDBOX_ALONE.values()):
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), refuse]
    steps += [(_EQUAL, 0, 3, _CLONE[column]), (_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _NAME_SPACES), refuse, allow]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _capabilities(libc: ctypes.CDLL) -> bytes:
    found = ctypes.create_string_buffer(24)
    libc.capget(_CAPABILITIES, found)
    return found.raw


def _first_steps() -> list[Instruction]:
    mark, _ = _ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _NOT_PERMITTED)
    return [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, mark), refuse,
        (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _OTHER_ABI), refuse,
        (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _NOT_KNOWN),  # the C library goes on with clone, which shows its flags
    ]  # fmt: skip


def _program() -> list[Instruction]:
    _, column = _ARCHITECTURES[platform.machine()]
    refuse, allow = (_RETURN, 0, 0, _NOT_PERMITTED), (_RETURN, 0, 0, _ALLOW)
    steps = _first_steps()
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), refuse]
    for kill in _KILL:  # itself alone: that is how abort works
        steps += [(_EQUAL, 0, 4, kill[column]), (_LOAD, 0, 0, _FIRST), (_EQUAL, 0, 1, os.getpid()), allow, refuse]
    steps += [(_EQUAL, 0, 4, _CLONE[column]), (_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, _THREAD), allow, refuse]
    steps += [
        (_EQUAL, 0, 6, _PRLIMIT[column]),  # without new limits
        (_LOAD, 0, 0, _THIRD), (_EQUAL, 0, 3, 0), (_LOAD, 0, 0, _THIRD_HIGH), (_EQUAL, 0, 1, 0), allow, refuse, allow,
    ]  # fmt: skip
    return steps
