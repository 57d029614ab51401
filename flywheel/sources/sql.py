"""The rows of one query, read through a server-side cursor in a transaction that cannot write.

PostgreSQL: READ ONLY, REPEATABLE READ; the query is declared as a cursor, which takes one SELECT and nothing else.
SQLite: the file is opened for reading only. MySQL and MariaDB: START TRANSACTION READ ONLY. Other databases: the query
must begin like a SELECT, and the transaction is rolled back; give a user that may only read. Not covered: what a
read-only transaction lets a superuser's functions do outside the database, such as writing a file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flywheel.errors import SourceError
from flywheel.recipe_sources import SqlSource
from flywheel.sources.rolling import RollingParquet
from flywheel.sources.sql_cells import Columns

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

CONNECT_SECONDS = 30
_NAME = re.compile(r"\$\{(\w+)\}")
_SKIPPED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|(?P<end>;)", re.DOTALL)
_COMMENT = re.compile(r"(?:\s|\(|--[^\n]*|/\*.*?\*/)*", re.DOTALL)
_READS = ("select", "with", "values", "table")


def acquire(
    source: SqlSource, into: Path, *, environment: Mapping[str, str], allowed: frozenset[str]
) -> dict[str, Any]:
    """Write the rows of the query into `into`/rows-00000.parquet and so on; returns `rows` and `files`.

    Columns keep the query's order and names. `environment` fills `${NAME}` in the URL. `allowed`, which limits what is
    fetched from the web, plays no part: the recipe names the database. Raises SourceError for a URL, driver or query
    that cannot be used and for whatever the database says, with passwords blotted out.
    """
    from sqlalchemy.exc import SQLAlchemyError

    url, secrets = _address(source.url, environment)
    _refuse_what_is_no_select(source.query)
    try:
        with _connected(url) as connection, RollingParquet(into) as files:
            _copy(source, connection, files)
            return {"rows": files.rows, "files": files.files}
    except (SQLAlchemyError, OverflowError, UnicodeError) as error:
        raise _failed(url, _said(error, secrets)) from None


def _copy(source: SqlSource, connection: Connection, files: RollingParquet) -> None:
    from sqlalchemy import text

    streamed = connection.execution_options(stream_results=True, yield_per=source.batch_size)
    result = streamed.execute(text(source.query).bindparams(**source.parameters))
    if not result.returns_rows:
        raise _no_select(source.query)
    columns = Columns(_unique(list(result.keys())))
    for rows in result.partitions(source.batch_size):
        files.write(columns.table(rows[: None if source.max_rows is None else source.max_rows - files.rows]))
        if files.rows == source.max_rows:
            return


# ---------------------------------------------------------------- the connection


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    """A connection inside a transaction that cannot write; always rolled back."""
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            elif url.get_backend_name() in ("mysql", "mariadb"):
                connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
                connection.rollback()
            yield connection
            connection.rollback()
    finally:
        engine.dispose()


def _engine(url: URL) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {"poolclass": NullPool, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        options["creator"] = _sqlite(url)
    elif url.drivername == "postgresql+psycopg":
        options["connect_args"] = {"connect_timeout": CONNECT_SECONDS, **url.query}
    try:
        return create_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        postgres = url.get_backend_name() == "postgresql"
        raise SourceError(
            f"database {_shown(url)}",
            found=str(error),
            expected=f"an installed driver for {url.drivername}",
            remedy="run `pip install -c constraints.txt 'flywheel-mlops[postgres]'`"
            if postgres
            else f"install SQLAlchemy's dialect and driver for {url.drivername}",
        ) from None


def _sqlite(url: URL) -> Any:
    path = Path(url.database or "").expanduser().resolve()
    if url.database in (None, "", ":memory:") or not path.is_file():
        raise SourceError(
            f"database {_shown(url)}",
            found="no such file",
            expected="an SQLite file that exists",
            remedy="write its path after sqlite:///; an absolute path begins with a fourth slash",
        )

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        connection.text_factory = _text
        connection.execute("PRAGMA query_only = ON")
        return connection

    return connect


def _text(raw: bytes) -> str | bytes:
    """SQLite does not check that a text is UTF-8; one that is not stays as bytes, for the reader to judge."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


# ---------------------------------------------------------------- the address and the query


def _address(template: str, environment: Mapping[str, str]) -> tuple[URL, set[str]]:
    """The URL with its `${NAME}`s filled, and what must not be shown of it."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    secrets: set[str] = set()
    login = template.find("@")
    question = template.find("?")

    def filled(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise SourceError(
                f"database URL {template.split('://')[0]}://...",
                found=f"the environment variable {name} is not set",
                expected=f"a value for ${{{name}}}",
                remedy=f"set {name}",
            )
        value = environment[name]
        inside = match.start() < login or -1 < question < match.start()
        secrets.update((value, quote(value, safe="")))
        return quote(value, safe="") if inside else value

    try:
        url = make_url(_NAME.sub(filled, template))
    except (ArgumentError, ValueError):
        raise SourceError(
            "database URL",
            found="text that SQLAlchemy cannot read as a URL",
            expected="dialect+driver://user:${PASSWORD}@host:port/database",
            remedy="correct `url` of the source; `${NAME}` is quoted where it stands before the @",
        ) from None
    if url.password:
        secrets.add(str(url.password))
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    return url, secrets - {""}


def _refuse_what_is_no_select(query: str) -> None:
    ends = [match.end() for match in _SKIPPED.finditer(query) if match["end"]]
    if ends and _COMMENT.sub("", query[ends[0] :], count=1).strip("; \t\n"):
        raise SourceError(
            f"query {_start(query)}",
            found="more than one statement",
            expected="one SELECT",
            remedy="give each query a source of its own",
        )
    start = _COMMENT.match(query)
    word = re.match(r"\w*", query[start.end() if start else 0 :])
    if word is None or word.group().lower() not in _READS:
        raise _no_select(query)


def _no_select(query: str) -> SourceError:
    return SourceError(
        f"query {_start(query)}",
        found="a statement that is no SELECT",
        expected="one SELECT (or WITH, VALUES, TABLE); nothing is ever written to a source",
        remedy="write a query that only reads",
    )


def _unique(names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(
            "columns of the query",
            found=f"{twice[0]} more than once",
            expected="a name of its own for every column",
            remedy="name the columns with AS",
        )
    return list(names)


def _failed(url: URL, said: str) -> SourceError:
    reads_only = "read-only" in said or "readonly" in said or "data-modifying" in said
    return SourceError(
        f"database {_shown(url)}",
        found=said,
        expected="a query that only reads" if reads_only else "a database that answers the query",
        remedy="write a query that only reads; nothing is ever written to a source"
        if reads_only
        else "correct `url`, `query` or `parameters` of the source, or start the database",
    )


def _said(error: Exception, secrets: set[str]) -> str:
    """What the driver said, in one line, without SQLAlchemy's links and without any secret."""
    text = str(getattr(error, "orig", None) or error)
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split("(Background on this error")[0].split())[:500]


def _shown(url: URL) -> str:
    """The URL without its password and its options, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def _start(query: str) -> str:
    line = " ".join(query.split())
    return repr(line if len(line) <= 80 else line[:77] + "...")
