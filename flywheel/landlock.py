"""Landlock: from here on this process, whatever code it runs, writes below one directory alone, starts no program,
opens no TCP connection and signals no other process. Linux 5.13 or later; elsewhere nothing happens.

Source: https://docs.kernel.org/userspace-api/landlock.html. The glibc has no functions for these system calls.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of the system calls, the same on all processors."""
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

_EXECUTE, _WRITE, _REMOVE_DIR, _REMOVE_FILE = 1 << 0, 1 << 1, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REGULAR = 1 << 7, 1 << 8
_MAKE_OTHERS = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
"""Devices, sockets, pipes and symbolic links."""
_REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
_NET = 1 << 0 | 1 << 1
"""Bind and connect over TCP."""
_SCOPES = 1 << 0 | 1 << 1
"""Abstract sockets, and signals to processes outside."""


def confine(directory: str) -> bool:
    """Give up all of the above for good, as far as the kernel knows how; False where it has no Landlock."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1 or libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    handled = _handled(version)
    attributes = struct.pack("QQQ", handled, _NET, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    own = _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REGULAR | _REFER | _TRUNCATE
    try:
        for path, rights in ((directory, own), (os.devnull, _WRITE | _TRUNCATE)):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            libc.syscall(_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", rights & handled, place), 0)
            os.close(place)
        return bool(libc.syscall(_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _handled(version: int) -> int:
    """The rights that this version of Landlock can take away; reading stays free."""
    rights = _EXECUTE | _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REGULAR | _MAKE_OTHERS
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _DEVICE_CONTROL)):
        rights |= right if version >= since else 0
    return rights
