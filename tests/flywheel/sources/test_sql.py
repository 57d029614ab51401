from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, make_url

from flywheel.errors import SourceError
from flywheel.recipe_sources import SqlSource
from flywheel.sources import rolling, sql


@pytest.fixture(scope="session")
def postgres(postgres_url: str) -> str:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE kinds (n int, price numeric(9,2), ratio float8, ok bool, name text, raw bytea, born date,"
            " at timestamptz, doc jsonb, tags text[], id uuid)"
        )
        connection.exec_driver_sql(
            "INSERT INTO kinds VALUES (1, 9.90, 0.5, true, 'Größe', '\\x00ff', '2024-02-29', '2024-02-29 12:00+00',"
            """ '{"a": [1, 2.5]}', '{x,y}', '12345678-1234-5678-1234-567812345678')"""
        )
        connection.exec_driver_sql("INSERT INTO kinds (n) VALUES (2)")
        connection.exec_driver_sql("CREATE TABLE numbers AS SELECT i FROM generate_series(1, 25000) i")
        connection.exec_driver_sql(
            "CREATE FUNCTION sneaky() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM numbers; RETURN 1; END $$"
        )
        connection.exec_driver_sql("CREATE SEQUENCE counter")
    engine.dispose()
    return postgres_url


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE items (id INTEGER, name TEXT, price REAL)")
        connection.executemany("INSERT INTO items VALUES (?, ?, ?)", [(1, "apple", 0.5), (2, None, 2), (3, "fig", 1e9)])
    return path


def read(url: str, query: str, into: Path, environment: Mapping[str, str] = {}, **more: Any) -> list[dict[str, Any]]:
    source = SqlSource(type="sql", url=url, query=query, **more)
    counts = sql.acquire(source, into, environment=environment, allowed=frozenset())
    files = sorted(into.glob("*.parquet"))
    found = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert counts == {"rows": len(found), "files": len(files)}
    return found


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_sqlite_rows_keep_order_names_and_types(database: Path, tmp_path: Path) -> None:
    found = read(sqlite_url(database), "SELECT name, price AS cost, id FROM items ORDER BY id DESC;", tmp_path / "out")
    assert found[0] == {"name": "fig", "cost": 1e9, "id": 3}
    assert [list(row) for row in found] == [["name", "cost", "id"]] * 3
    assert found[1]["name"] is None


def test_parameters_are_bound_never_pasted(database: Path, tmp_path: Path) -> None:
    query = "SELECT id, ':x' AS said FROM items WHERE name = :name -- ;\n"
    hostile = "apple' OR '1'='1"
    assert read(sqlite_url(database), query.replace(":x", "12:30"), tmp_path / "a", parameters={"name": hostile}) == []
    found = read(sqlite_url(database), query.replace(":x", "12:30"), tmp_path / "b", parameters={"name": "apple"})
    assert found == [{"id": 1, "said": "12:30"}]
    with pytest.raises(SourceError, match="name"):
        read(sqlite_url(database), query.replace(":x", ""), tmp_path / "c")
    with pytest.raises(SourceError, match="other"):
        read(sqlite_url(database), "SELECT 1", tmp_path / "d", parameters={"other": 1})


WRITES = [
    "INSERT INTO items VALUES (4, 'x', 1)",
    "DELETE FROM items RETURNING id",
    "SELECT 1; DROP TABLE items",
    "/* SELECT */ DROP TABLE items",
    "WITH x AS (SELECT 1) INSERT INTO items SELECT 4, 'x', 1",
    "WITH x AS (SELECT 1) DELETE FROM items RETURNING id",
    "PRAGMA query_only = OFF",
    "ATTACH DATABASE 'other.db' AS other",
    "",
]


@pytest.mark.parametrize("query", WRITES)
def test_nothing_is_ever_written_to_sqlite(database: Path, tmp_path: Path, query: str) -> None:
    before = database.read_bytes()
    with pytest.raises(SourceError, match=r"no SELECT|only reads|more than one"):
        read(sqlite_url(database), query, tmp_path / "out")
    assert database.read_bytes() == before


def test_columns_whose_rows_disagree_widen(tmp_path: Path) -> None:
    path = tmp_path / "mixed.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id, a, b, c)")
        rows = [(1, None, 1, b"\xff"), (2, 1, 2.5, "x"), (3, "é", 3, None), (4, 2, 4, 5)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO t VALUES (5, CAST(x'fffe41' AS TEXT), 0, 0)")
    whole = read(sqlite_url(path), "SELECT a, b, c FROM t ORDER BY id", tmp_path / "whole")
    assert [row["a"] for row in whole] == [None, b"1", "é".encode(), b"2", b"\xff\xfeA"]
    assert [row["b"] for row in whole] == [1.0, 2.5, 3.0, 4.0, 0.0]
    assert [row["c"] for row in whole] == [b"\xff", b"x", None, b"5", b"0"]
    single = read(sqlite_url(path), "SELECT id, a FROM t WHERE id < 5 ORDER BY id", tmp_path / "single", batch_size=1)
    assert [row["a"] for row in single] == [None, 1, "é", "2"]


def test_files_roll(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "MAX_ROWS", 2)
    found = read(sqlite_url(database), "SELECT id FROM items ORDER BY id", tmp_path / "out", batch_size=1)
    assert [row["id"] for row in found] == [1, 2, 3]
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["rows-00000.parquet", "rows-00001.parquet"]


def test_the_first_rows_alone(database: Path, tmp_path: Path) -> None:
    whole = read(sqlite_url(database), "SELECT id FROM items ORDER BY id", tmp_path / "whole")
    for most in (1, 2, 9):
        out = tmp_path / str(most)
        found = read(sqlite_url(database), "SELECT id FROM items ORDER BY id", out, batch_size=2, max_rows=most)
        assert found == whole[:most]


def test_equal_rows_give_equal_files(database: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        read(sqlite_url(database), "SELECT * FROM items ORDER BY id", tmp_path / name)
    assert (tmp_path / "a/rows-00000.parquet").read_bytes() == (tmp_path / "b/rows-00000.parquet").read_bytes()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///nowhere.db", "no such file"),
        ("sqlite://", "no such file"),
        ("no url", "cannot read as a URL"),
        ("oracle://u:geheim@h/d", "installed driver"),
        ("nonsense://u:geheim@h/d", "installed driver"),
        ("postgresql://u:geheim@127.0.0.1:1/d?sslpassword=geheim", "refused"),
        ("postgresql://u:${SECRET}@127.0.0.1:1/d", "refused"),
        ("postgresql://u:${MISSING}@127.0.0.1:1/d", "MISSING is not set"),
    ],
)
def test_what_cannot_be_reached_is_explained_without_its_password(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said) as error:
        read(url, "SELECT 1", tmp_path / "out", {"SECRET": "geheim"})
    assert "geheim" not in str(error.value)


def test_two_columns_of_one_name_are_refused(database: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="id more than once"):
        read(sqlite_url(database), "SELECT id, id FROM items", tmp_path / "out")


def test_postgres_types(postgres: str, tmp_path: Path) -> None:
    first, second = read(postgres, "SELECT * FROM kinds ORDER BY n", tmp_path / "out")
    assert json.loads(first.pop("doc")) == {"a": [1, 2.5]}
    assert first.pop("at").startswith("2024-02-29T")
    assert first == {
        "n": 1, "price": "9.90", "ratio": 0.5, "ok": True, "name": "Größe", "raw": b"\x00\xff", "born": "2024-02-29",
        "tags": '["x", "y"]', "id": "12345678-1234-5678-1234-567812345678",
    }  # fmt: skip
    assert second == {name: 2 if name == "n" else None for name in second}


def test_postgres_streams_in_batches(postgres: str, tmp_path: Path) -> None:
    found = read(postgres, "SELECT i, i % 3 AS r FROM numbers WHERE i > :low ORDER BY i", tmp_path / "out",
                 parameters={"low": 5}, batch_size=700)  # fmt: skip
    assert [row["i"] for row in found] == list(range(6, 25001))


def test_the_password_comes_from_the_environment_and_is_quoted(postgres: str, tmp_path: Path) -> None:
    url = make_url(postgres)
    template = re.sub(r":[^:@]*@", ":${DB_PASSWORD}@", postgres)
    assert read(template, "SELECT 1 AS one", tmp_path / "a", {"DB_PASSWORD": str(url.password)}) == [{"one": 1}]
    with pytest.raises(SourceError, match="password authentication failed") as error:
        read(template, "SELECT 1", tmp_path / "b", {"DB_PASSWORD": "geheim#1"})
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO numbers VALUES (0)",
        "WITH gone AS (DELETE FROM numbers RETURNING i) SELECT * FROM gone",
        "SELECT sneaky()",
        "SELECT nextval('counter')",
        "SELECT 1; DROP TABLE numbers",
        "SELECT $$;$$; COMMIT; DROP TABLE numbers",
        "SELECT E'\\''; COMMIT; DROP TABLE numbers; --'",
        "SELECT i INTO stolen FROM numbers",
        "SELECT set_config('transaction_read_only', 'off', false), sneaky()",
        "COPY numbers TO PROGRAM 'true'",
    ],
)
def test_nothing_is_ever_written_to_postgres(postgres: str, tmp_path: Path, query: str) -> None:
    with pytest.raises(SourceError):
        read(postgres, query, tmp_path / "out")
    state = "SELECT count(*) AS n, to_regclass('stolen') IS NULL AS clean FROM numbers"
    assert read(postgres, state, tmp_path / "after") == [{"n": 25000, "clean": True}]
    engine = create_engine(postgres)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT is_called FROM counter").scalar() is False
    engine.dispose()
