"""Goal A4: each guard alone stops every attack, and none stops what merely reads."""

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sql_attacks import BOMBS, attacks

from myna.apps.sql.database import Column, Database, Limits, Table, collect
from myna.apps.sql.duckdb import DuckDb
from myna.apps.sql.guard import Allowed, check, tables_of
from myna.apps.sql.postgres import Postgres
from myna.apps.sql.sqlite import Sqlite, authorizer, connect, limit, rows
from myna.records import SqlError

SECRET = "the-secret-in-the-file"
QUICK = Limits(seconds=0.5)
TABLES = [Table(name, (Column("id"),)) for name in ("singer", "concert", "french")]
DATA = Path(__file__).parents[4] / "shared/data"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    secret, out = tmp_path / "secret.txt", tmp_path / "out"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    yield secret, out
    assert not out.exists()


def survivors(database: Database, files: tuple[Path, Path]) -> list[str]:
    """Attacks that gave the secret away; all are run."""
    told = []
    for attack in attacks(database.dialect, *map(str, files)):
        try:
            found = database.run(attack, QUICK)
        except SqlError:
            continue
        if SECRET in str(found.rows) or "root:" in str(found.rows):
            told.append(attack)
    return told


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb", "postgres"])
def test_the_parser_alone_lets_no_attack_pass(dialect: Any) -> None:
    allowed = Allowed.of(dialect, TABLES)
    passed = []
    for attack in [*attacks(dialect), *BOMBS.strip().split("\n")]:
        try:
            passed.append((attack, check(attack, allowed)))
        except SqlError:
            continue
    assert passed == []


def test_there_are_two_hundred_attacks_and_more() -> None:
    assert len({attack for dialect in ("sqlite", "duckdb", "postgres") for attack in attacks(dialect)}) >= 340


def test_sqlites_connection_alone_writes_nothing_and_reads_no_file(sqlite_db: Sqlite, files: tuple[Path, Path]) -> None:
    before = sqlite_db.path.read_bytes()
    assert survivors(sqlite_db, files) == []
    assert sqlite_db.path.read_bytes() == before
    assert {one.name for one in sqlite_db.path.parent.iterdir()} == {"songs.sqlite", "secret.txt"}


def test_sqlites_authorizer_alone_holds_a_writable_connection(sqlite_db: Sqlite, files: tuple[Path, Path]) -> None:
    before = sqlite_db.path.read_bytes()
    for attack in attacks("sqlite", *map(str, files)):
        with closing(connect(sqlite_db.path, "rw")) as connection:
            limit(connection, QUICK)
            connection.set_authorizer(authorizer())
            with suppress(sqlite3.Error, sqlite3.Warning, SqlError, ValueError):
                assert SECRET not in str(rows(connection, attack, QUICK).rows)
    assert sqlite_db.path.read_bytes() == before


@pytest.mark.parametrize("call", ["zeroblob(3)", "randomblob(3)", "fts3_tokenizer('simple')", "sqlite_source_id()"])
def test_sqlites_connection_alone_knows_what_may_be_called(call: str, sqlite_db: Sqlite) -> None:
    with pytest.raises(SqlError) as failed:
        sqlite_db.run(f"SELECT {call}")
    assert failed.value.kind == "refused"


def test_the_attacks_would_change_an_open_database(sqlite_db: Sqlite, tmp_path: Path) -> None:
    """The suite bites: with no guard, every other attack in SQLite's words does what it says."""
    before, changed = sqlite_db.path.read_bytes(), 0
    for attack in attacks("sqlite", str(tmp_path / "secret.txt"), str(tmp_path / "out")):
        sqlite_db.path.write_bytes(before)
        with closing(sqlite3.connect(sqlite_db.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            with suppress(sqlite3.Error, sqlite3.Warning, ValueError, MemoryError):
                connection.executescript(attack)
        changed += sqlite_db.path.read_bytes() != before
    assert changed >= 45


@pytest.mark.slow
def test_duckdbs_connection_alone_writes_nothing_and_reads_no_file(duck_db: DuckDb, files: tuple[Path, Path]) -> None:
    before = duck_db.path.read_bytes()
    assert survivors(duck_db, files) == []
    assert duck_db.path.read_bytes() == before
    assert {one.name for one in duck_db.path.parent.iterdir()} == {"songs.duckdb", "secret.txt"}


@pytest.mark.slow
def test_postgres_connection_alone_writes_nothing_and_reads_no_file(
    postgres_db: Postgres, postgres_admin: str, files: tuple[Path, Path]
) -> None:
    before = state(postgres_admin)
    assert survivors(postgres_db, files) == []
    assert state(postgres_admin) == before


def state(address: str) -> list[Any]:
    """All of a PostgreSQL database that an attack could have changed: rows, tables, functions, roles, sequences, large objects."""
    import psycopg

    with psycopg.connect(address) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT * FROM singer ORDER BY id",
                "SELECT * FROM concert ORDER BY id",
                "SELECT relname, relkind, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
                "SELECT rolname, rolsuper FROM pg_roles ORDER BY 1",
                "SELECT count(*) FROM pg_proc",
                "SELECT last_value, is_called FROM counter",
                "SELECT count(*) FROM pg_largeobject_metadata",
                "SELECT extname FROM pg_extension ORDER BY 1",
            )
        ]


def test_the_caps_alone_end_what_never_ends() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        endless = "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT i, hex(zeroblob(5000)) FROM t"
        cursor = connection.execute(endless)
        found = collect(["i", "x"], cursor.fetchmany, Limits(rows=70))
        assert len(found.rows) == 70
        assert found.notes == ("not all rows: stopped after 70 rows",)
        found = collect(["i", "x"], cursor.fetchmany, Limits(bytes=100_000, cell=100))
        assert len(found.rows) == 862  # 8 bytes of a number, 100 characters and a mark of 7 bytes and more
        assert "more than 100,000 bytes" in found.notes[0]
        assert found.notes[1] == "862 cells cut after 100 characters"


READS = {
    "sqlite": """
        SELECT count(*) FROM singer
        select distinct country from singer where age >= 20 and name not like 'B%' order by age desc limit 3
        SELECT s.name, count(c.id) AS n FROM singer AS s LEFT JOIN concert c ON c.singer_id = s.id GROUP BY s.id HAVING n > 0
        SELECT name FROM singer WHERE id IN (SELECT singer_id FROM concert WHERE strftime('%Y', day) = '2024')
        WITH x AS (SELECT * FROM singer), y AS (SELECT * FROM x) SELECT y.name FROM y WHERE EXISTS (SELECT 1 FROM x)
        WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 9) SELECT sum(i) FROM t
        SELECT name FROM singer UNION SELECT title FROM concert EXCEPT SELECT 'x' ORDER BY 1
        SELECT name, rank() OVER (PARTITION BY country ORDER BY age DESC) FROM singer
        SELECT CASE WHEN age > 40 THEN '老' ELSE '少' END AS 年龄, avg(age) FROM singer GROUP BY 1
        SELECT round(100.0 * sum(iif(age > 40, 1, 0)) / count(*), 1) || ' %' FROM singer
        SELECT upper(substr(name, 1, 1)), instr(name, 'n'), coalesce(sold, 0), date('now'), julianday(day) FROM singer, concert
        SELECT name FROM singer WHERE name = 'O''Brien; DROP TABLE x --' OR country BETWEEN 'A' AND 'Z' OR sold IS NULL
        SELECT group_concat(name, ', ') FROM singer
        SELECT j.value FROM singer, json_each('[1, 2]') AS j
        SELECT cast(age AS REAL) / 3 FROM main.singer -- a comment
        SELECT * FROM french;
    """,
    "duckdb": """
        FROM singer
        SELECT name, strftime(day, '%Y-%m') FROM concert JOIN singer ON singer.id = singer_id
        SELECT * EXCLUDE (age) FROM singer QUALIFY row_number() OVER (ORDER BY age) = 1
        SELECT date_trunc('month', day), count(*) FILTER (WHERE id > 1) FROM concert GROUP BY ALL ORDER BY ALL
        SELECT median(age), quantile_cont(age, 0.9), list(name) FROM singer
        SELECT name FROM singer WHERE name ILIKE 'a%' OR regexp_matches(name, '^B')
        SELECT i FROM generate_series(1, 3) AS t(i)
        SELECT age::VARCHAR || name, {'a': age}.a, [1, 2][1] FROM main.singer
        SELECT date_diff('day', DATE '2024-01-01', day) FROM concert
    """,
    "postgres": """
        SELECT name, sold::text FROM singer WHERE name ILIKE 'a%' OR name ~ '^B'
        SELECT extract(year FROM day), date_trunc('month', day), to_char(day, 'YYYY') FROM concert
        SELECT country, count(*) FILTER (WHERE age > 26), string_agg(name, ', ' ORDER BY name) FROM singer GROUP BY country
        SELECT DISTINCT ON (country) country, name FROM singer ORDER BY country, age DESC
        SELECT s.name FROM singer s, LATERAL (SELECT count(*) AS n FROM concert c WHERE c.singer_id = s.id) x WHERE x.n > 1
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age) FROM singer
        SELECT name FROM public.singer WHERE id = ANY (ARRAY[1, 2]) AND day_of IS NULL
        SELECT now() - interval '1 day', current_date, greatest(1, 2), generate_series(1, 3)
        SELECT * FROM singer WHERE (id, age) IN ((1, 30)) FETCH FIRST 2 ROWS ONLY
        SELECT name FROM singer ORDER BY sold DESC NULLS LAST OFFSET 1
    """,
}


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb", "postgres"])
def test_what_reads_passes(dialect: Any) -> None:
    allowed = Allowed.of(dialect, TABLES)
    for query in READS[dialect].strip().split("\n"):
        assert check(query.strip(), allowed)


def test_what_reads_runs_in_sqlite_and_gives_the_same(sqlite_db: Sqlite) -> None:
    allowed = Allowed.of("sqlite", sqlite_db.tables())
    for query in READS["sqlite"].strip().split("\n"):
        assert sqlite_db.run(query.strip()).rows == sqlite_db.run(check(query.strip(), allowed)).rows, query


def test_what_reads_runs_in_duckdb(duck_db: DuckDb) -> None:
    allowed = Allowed.of("duckdb", duck_db.tables())
    for query in READS["duckdb"].strip().split("\n"):
        before, after = duck_db.run(query.strip()), duck_db.run(check(query.strip(), allowed))
        assert Counter(map(str, before.rows)) == Counter(map(str, after.rows)), query


def test_what_reads_runs_in_postgres(postgres_db: Postgres) -> None:
    allowed = Allowed.of("postgres", postgres_db.tables())
    for query in READS["postgres"].strip().split("\n"):
        query = query.replace("AND day_of IS NULL", "").strip()
        assert len(postgres_db.run(check(query, allowed)).rows) == len(postgres_db.run(query).rows) > 0, query


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ("SELECT * FROM secret", True),
        ("SELECT * FROM other.singer", True),
        ("SELECT * FROM x.main.singer", True),
        ("WITH secret AS (SELECT 1) SELECT * FROM secret", False),
        # The definition is seen in the subquery alone, after it and not before.
        ("SELECT * FROM secret, (WITH secret AS (SELECT 1) SELECT * FROM secret) AS x", True),
        ("WITH a AS (SELECT * FROM secret), secret AS (SELECT 1) SELECT * FROM a", True),
        ("WITH secret AS (SELECT * FROM secret) SELECT * FROM secret", True),
        ("WITH secret AS (SELECT 1), a AS (SELECT * FROM secret) SELECT * FROM a", False),
        ("SELECT (SELECT max(id) FROM secret) FROM singer", True),
        ("SELECT * FROM singer WHERE id IN (SELECT id FROM secret)", True),
        ("SELECT ? FROM singer", True),
        ("SELECT :x FROM singer", True),
        ("SELECT 1 + " * 3000 + "1", True),
        ("SELECT NOT " + "NOT " * 3000 + "1", True),
    ],
)
def test_only_known_tables_and_no_parameters(query: str, refused: bool) -> None:
    allowed = Allowed.of("sqlite", TABLES)
    if refused:
        with pytest.raises(SqlError):
            check(query, allowed)
    else:
        assert check(query, allowed)


def test_a_table_that_is_not_there_is_named_without_its_alias() -> None:
    with pytest.raises(SqlError, match=r"there is no table Country to be read"):
        check("SELECT T2.a FROM Country AS T2", Allowed.of("sqlite", ()))
    with pytest.raises(SqlError, match=r"the table x\.y\.z is not allowed"):
        check("SELECT 1 FROM x.y.z AS q", Allowed.of("sqlite", ()))


def test_a_limit_is_added_and_a_smaller_one_stays() -> None:
    allowed = Allowed.of("sqlite", TABLES)
    assert check("SELECT 1", allowed, 10) == "SELECT 1 LIMIT 11"
    assert check("SELECT 1 LIMIT 5", allowed, 10) == "SELECT 1 LIMIT 5"
    assert check("SELECT 1 LIMIT 5000", allowed, 10) == "SELECT 1 LIMIT 11"
    assert check("SELECT 1 UNION SELECT 2 ORDER BY 1", allowed, 10) == "SELECT 1 UNION SELECT 2 ORDER BY 1 LIMIT 11"


def test_tables_of_a_query_are_those_it_does_not_define() -> None:
    assert tables_of("WITH x AS (SELECT * FROM singer) SELECT * FROM x JOIN concert", "sqlite") == {"singer", "concert"}


def gold() -> list[tuple[str, str]]:
    found = []
    for line in gzip.decompress((DATA / "spider/questions.jsonl.gz").read_bytes()).splitlines():
        one = json.loads(line)
        found.append((f"spider/{one['db_id']}", one["query"]))
    for line in gzip.decompress((DATA / "sqleval/questions.jsonl.gz").read_bytes()).splitlines():
        one = json.loads(line)
        found += [(f"sqleval/{one['db_id']}", query) for query in one["gold"]]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data: Spider and SQL-Eval")
def test_every_gold_query_passes_and_gives_the_same_rows(tmp_path: Path) -> None:
    """Goals A4 (false blocks) and A5 (plumbing): 465 queries of Spider and SQL-Eval, through guard, connection and caps."""
    queries, databases = gold(), {}
    for name in {name for name, _ in queries}:
        path = tmp_path / name.replace("/", "_")
        path.write_bytes(gzip.decompress((DATA / f"{name}.sqlite.gz").read_bytes()))
        databases[name] = Sqlite(path)
    allowed = {name: Allowed.of("sqlite", database.tables()) for name, database in databases.items()}
    assert len(queries) == 465
    for name, query in queries:
        through = databases[name].run(check(query, allowed[name]))
        with closing(sqlite3.connect(databases[name].path)) as plainly:
            assert Counter(through.rows) == Counter(plainly.execute(query).fetchall()), query
