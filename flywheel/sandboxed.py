"""What runs inside the sandbox: the checks in one process, the program in another, plain data between them.

`flywheel.sandbox` starts this file as a script; it knows the standard library alone. The program is forked off before
the checks are read, so neither they nor what they expect is ever in its memory. The checks call its functions through
a pipe, and a value that comes back is a copy, made of built-in types: no object of the program can say of itself that
it equals what was expected, and a program that ends early leaves calls without an answer.
"""

from __future__ import annotations

import builtins
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import struct
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from types import CodeType, ModuleType
from typing import Any, NoReturn

Message = dict[str, Any]


def main() -> None:
    """Arguments: user id, most processes, seconds until the end of everything, descriptor for the verdict. The job is
    read from standard input; the verdict is a line `ready`, a line `compiled` where the source is accepted, and a JSON
    object when all is over."""
    user, processes, seconds, verdict = (int(argument) for argument in sys.argv[1:])
    _lower_rights(user, processes)
    _end_with(verdict, seconds)
    requests, asking = os.pipe()
    answers, answering = os.pipe()
    child = os.fork()
    if child == 0:
        for other in (0, verdict, asking, answers):
            os.close(other)
        for kind in (signal.SIGALRM, signal.SIGIO):
            signal.signal(kind, signal.SIG_DFL)
        _Program(requests, answering).live()
    os.close(requests)
    os.close(answering)
    job: Message = json.loads(sys.stdin.buffer.read())
    _say(verdict, "ready")
    found = _judged(job, _Remote(asking, answers, child), lambda: _say(verdict, "compiled"))
    _say(verdict, json.dumps(found))
    os._exit(0)


def _say(verdict: int, line: str) -> None:
    os.write(verdict, line.encode() + b"\n")


def _lower_rights(user: int, processes: int) -> None:
    """Become another user where this is root, without its powers."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24))  # its third version, for this process
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))


def _end_with(verdict: int, seconds: int) -> None:
    """End, and the sandbox with it, when nobody can read the verdict any more or the time is over.

    The kernel says that a parent died only where that parent may send signals to this user, and bubblewrap may not.
    """
    reader = select.poll()
    reader.register(verdict, 0)  # of errors alone, which is what a pipe without a reader has
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.signal(signal.SIGIO, lambda *_: os._exit(1) if reader.poll(0) else None)
    signal.alarm(seconds)
    fcntl.fcntl(verdict, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(verdict, fcntl.F_SETFL, fcntl.fcntl(verdict, fcntl.F_GETFL) | os.O_ASYNC)


# ---------------------------------------------------------------- the side of the checks


class EndedEarly(BaseException):
    """The program is gone. Not an Exception, so that checks which expect one do not take it for theirs."""


class _Remote:
    """The program, seen from the checks."""

    def __init__(self, asking: int, answers: int, child: int) -> None:
        self._asking, self._answers, self._child = os.fdopen(asking, "w"), os.fdopen(answers), child
        self.gone = False

    def do(self, **message: Any) -> Message:
        """What the program's process answers. Raises EndedEarly where nothing sensible comes, and what it raised:
        built-in exceptions as such, others as RuntimeError."""
        try:
            self._asking.write(json.dumps(message) + "\n")
            self._asking.flush()
            found = json.loads(self._answers.readline())
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.gone = True
            raise EndedEarly
        if "raised" in found:
            raise _exception(*found["raised"])
        return found

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the program with copies."""
        return decode(self.do(call=name, args=encode(args), kwargs=encode(kwargs)).get("value"))

    def end(self) -> int:
        """How the process ended, or ends now that nobody asks any more: its exit code, or minus a signal."""
        with suppress(OSError):
            self._asking.close()
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])


def _judged(job: Message, program: _Remote, compiled: Callable[[], None]) -> Message:
    """What came of a job: `status`, `exit_code` and `detail`. `compiled` is called once the source is compiled."""
    found: Message = {"status": "failed", "exit_code": None, "detail": ""}
    try:
        program.do(stdin=job["stdin"])
        program.do(source=job["source"], script=not job["checks"])
        compiled()
        program.do(load=True)
        if job["checks"]:
            _check(job, program)
            found["status"] = "failed" if program.gone else "passed"
    except MemoryError as error:
        found.update(status="memory", detail=str(error)[:200])
    except EndedEarly:
        found["detail"] = "the program ended before its checks had run" if job["checks"] else ""
    except BaseException as error:
        found["detail"] = _described(error, job["checks"])
    return {**found, **_ending(program.end(), script=not job["checks"])} if program.gone else found


def _ending(code: int, script: bool) -> Message:
    """What an end before its time means."""
    if code < 0:
        timeout = -code == signal.SIGXCPU
        return {"status": "timeout" if timeout else "crashed", "exit_code": code, "detail": signal.strsignal(-code)}
    return {"status": "passed" if script and code == 0 else "failed", "exit_code": code}


def _check(job: Message, program: _Remote) -> None:
    """Run the checks to their end. Where they share the program's process, it must say back a word that it is told
    together with them."""
    if job["shared"]:
        word = os.urandom(16).hex()
        if program.do(checks=job["checks"], word=word).get("done") != word:
            raise EndedEarly
        return
    space: Message = {"__name__": "checks"}
    exec(compile(job["prelude"], "<prelude>", "exec", dont_inherit=True), space)  # noqa: S102
    code = compile(job["checks"], "<checks>", "exec", dont_inherit=True)
    free = {name for name in _names(code) if name not in space and not hasattr(builtins, name)}
    space.update(_borrowed(program, free | set(job["entry"])))
    exec(code, space)  # noqa: S102


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _borrowed(program: _Remote, names: set[str]) -> Message:
    """Those of the names that the program defines: functions to call, copies of plain values, standard modules."""
    found = program.do(wanted=sorted(names))
    functions = {n: _caller(program, n) for n in found.get("functions", ()) if n in names}
    values = {n: decode(v) for n, v in found.get("values", {}).items() if n in names}
    modules = {n: __import__(m) for n, m in found.get("modules", {}).items() if m in sys.stdlib_module_names}
    return {**values, **{n: m for n, m in modules.items() if n in names}, **functions}


def _caller(program: _Remote, name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: program.call(name, *args, **kwargs)


def _exception(name: Any, text: Any) -> Exception:
    kind = getattr(builtins, str(name), None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(str(text))
        except TypeError:  # UnicodeDecodeError and the like want more than a text
            return RuntimeError(f"{name}: {text}")
    return RuntimeError(f"{name}: {text}")


def _described(error: BaseException, checks: str) -> str:
    """The exception, and the line of the checks that it comes from."""
    lines = checks.splitlines()
    places = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<checks>"]
    line = lines[places[-1] - 1].strip() if places and places[-1] else ""
    return ": ".join(part for part in (type(error).__name__, str(error)[:200], line[:200]) if part)


# ---------------------------------------------------------------- the side of the program


class _Program:
    """The process in which the program lives."""

    def __init__(self, requests: int, answering: int) -> None:
        self._requests, self._answering = os.fdopen(requests), os.fdopen(answering, "w")
        self._space: Message = {}
        self._code: CodeType | None = None

    def live(self) -> NoReturn:
        """Answer until nobody asks any more."""
        for line in self._requests:
            answer = self._answer(json.loads(line))
            self._answering.write(json.dumps(answer) + "\n")
            self._answering.flush()
        os._exit(0)

    def _answer(self, asked: Message) -> Message:
        try:
            for key, act in self._acts().items():
                if key in asked:
                    return act(asked)
        except SystemExit as error:
            if self._space.get("__name__") != "__main__":
                return {"raised": ["SystemExit", str(error)]}
            os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
        except BaseException as error:
            return {"raised": [type(error).__name__, _text(error)]}
        return {}

    def _acts(self) -> Mapping[str, Callable[[Message], Message]]:
        return {
            "call": self._call, "stdin": self._stdin, "source": self._compile, "load": self._load,
            "wanted": self._show, "checks": self._check,
        }  # fmt: skip

    def _stdin(self, asked: Message) -> Message:
        path = "/tmp/.stdin" if asked["stdin"] else os.devnull
        if asked["stdin"]:
            with open(path, "wb") as out:
                out.write(asked["stdin"].encode("latin-1"))
        os.open(path, os.O_RDONLY)  # 0, the lowest that is free
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        return {}

    def _compile(self, asked: Message) -> Message:
        name = "__main__" if asked["script"] else "program"
        self._code = compile(asked["source"], "<program>", "exec", dont_inherit=True)
        module = sys.modules[name] = ModuleType(name)
        self._space = module.__dict__
        return {}

    def _load(self, asked: Message) -> Message:
        assert self._code is not None
        exec(self._code, self._space)  # noqa: S102
        if self._space["__name__"] == "__main__":
            sys.exit(0)
        return {}

    def _show(self, asked: Message) -> Message:
        found: Message = {"functions": [], "values": {}, "modules": {}}
        for name in asked["wanted"]:
            value = self._space.get(name)
            if isinstance(value, ModuleType):
                found["modules"][name] = value.__name__
            elif callable(value):
                found["functions"].append(name)
            elif name in self._space:
                found["values"][name] = encode(value)
        return found

    def _call(self, asked: Message) -> Message:
        args, kwargs = decode(asked["args"]), decode(asked["kwargs"])
        return {"value": encode(self._space[asked["call"]](*args, **kwargs))}

    def _check(self, asked: Message) -> Message:
        exec(compile(asked["checks"], "<checks>", "exec", dont_inherit=True), self._space)  # noqa: S102
        return {"done": asked["word"]}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:400]
    except BaseException:
        return ""


# ---------------------------------------------------------------- plain data


class Opaque:
    """A value that has no copy, such as a match of a regular expression: true or false, and equal to nothing else."""

    def __init__(self, kind: str, truth: bool) -> None:
        self._kind, self._truth = kind, truth

    def __bool__(self) -> bool:
        return self._truth

    def __repr__(self) -> str:
        return f"<a value of type {self._kind}>"


def encode(value: Any) -> Any:
    """A value of built-in types as JSON; subclasses become what they are built on.
    Of another value only its truth goes along."""
    if value is None or isinstance(value, str | float | bool):
        return value
    if isinstance(value, int):  # hexadecimal, as long decimal numbers are refused
        return int(value) if abs(value) < 1 << 63 else {"int": hex(value)}
    for kind, write in _WRITERS.items():
        if isinstance(value, kind):
            return {kind.__name__: write(value)}
    if hasattr(value, "__next__"):
        return {"iterator": [encode(item) for item in value]}
    return {"opaque": [type(value).__name__, bool(value)]}


def decode(value: Any) -> Any:
    """The value that `encode` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, written),) = value.items()
    return _READERS[kind](written)


def _items(values: Any) -> list[Any]:
    return [encode(value) for value in values]


def _decoded(written: Any) -> list[Any]:
    return [decode(value) for value in written]


_WRITERS: dict[type, Callable[[Any], Any]] = {
    list: _items,
    tuple: _items,
    set: _items,
    frozenset: _items,
    deque: _items,
    dict: lambda value: [[encode(k), encode(v)] for k, v in value.items()],
    range: lambda value: [value.start, value.stop, value.step],
    bytes: lambda value: value.decode("latin-1"),
    bytearray: lambda value: value.decode("latin-1"),
    complex: lambda value: [value.real, value.imag],
    Decimal: str,
    Fraction: str,
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda written: int(written, 16),
    "list": _decoded,
    "tuple": lambda written: tuple(_decoded(written)),
    "set": lambda written: set(_decoded(written)),
    "frozenset": lambda written: frozenset(_decoded(written)),
    "deque": lambda written: deque(_decoded(written)),
    "iterator": lambda written: iter(_decoded(written)),
    "dict": lambda written: {decode(k): decode(v) for k, v in written},
    "range": lambda written: range(*written),
    "bytes": lambda written: written.encode("latin-1"),
    "bytearray": lambda written: bytearray(written.encode("latin-1")),
    "complex": lambda written: complex(*written),
    "opaque": lambda written: Opaque(str(written[0]), bool(written[1])),
    "Decimal": Decimal,
    "Fraction": Fraction,
}


if __name__ == "__main__":
    main()
