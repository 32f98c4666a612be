"""Statements that change something, read a file, reach the network or wait, in the words of each dialect. FILE is a file with a
secret in it, OUT one that must not come to be. None of them may be run through any guard."""

WRITES = """
DROP TABLE singer
DROP TABLE IF EXISTS singer
DROP VIEW french
DELETE FROM singer
DELETE FROM singer WHERE 1=1
delete from "singer"
UPDATE singer SET name = 'x'
UPDATE singer SET age = age + 1 WHERE id IN (SELECT id FROM singer)
INSERT INTO singer VALUES (9, 'Eve', 'X', 1, 1)
INSERT INTO singer SELECT id + 10, name, country, age, sold FROM singer
INSERT INTO singer (id, name) VALUES (9, '李清照') RETURNING id
UPDATE singer SET name = '黑客' RETURNING name
DELETE FROM concert RETURNING *
ALTER TABLE singer ADD COLUMN evil TEXT
ALTER TABLE singer RENAME TO gone
ALTER TABLE singer RENAME COLUMN name TO gone
ALTER TABLE singer DROP COLUMN age
CREATE TABLE evil (id INTEGER)
CREATE TABLE evil AS SELECT * FROM singer
CREATE VIEW evil AS SELECT * FROM singer
CREATE UNIQUE INDEX evil ON singer(name)
CREATE TABLE "表" (id INTEGER)
SELECT 1; DROP TABLE singer
SELECT * FROM singer; DELETE FROM singer; --
SELECT 1;;; UPDATE singer SET name = 'x'
; DELETE FROM singer
SELECT ';'; DELETE FROM singer
SELECT 1 /* ; */; DELETE FROM singer
SELECT 1 -- harmless{NL}; DELETE FROM singer
/* SELECT */ DELETE FROM singer
/**/DROP/**/TABLE/**/singer
--{NL}DROP TABLE singer
-- SELECT 1{NL}DELETE FROM singer
/* nested /* comment */ DELETE FROM singer
/* nested /* comment */ */ DELETE FROM singer
/*! DELETE FROM singer */
SELECT 1 /*! ; DELETE FROM singer */; DELETE FROM singer
{TAB}{NL}DELETE{NL}FROM{NL}singer
DELETE FROM singer
DELETE FROM singer
ＤＥＬＥＴＥ FROM singer
DELETE{ZW} FROM singer
SELECT 1{ZW}; DELETE FROM singer
SELECT 1； DELETE FROM singer
dElEtE fRoM sInGeR
(DELETE FROM singer)
WITH x AS (SELECT 1) DELETE FROM singer
WITH x AS (SELECT 1) INSERT INTO singer SELECT 9, 'x', 'x', 1, 1 FROM x
WITH x AS (SELECT 1 AS id) UPDATE singer SET name = 'x' WHERE id IN (SELECT id FROM x)
WITH x AS (DELETE FROM singer RETURNING *) SELECT * FROM x
WITH x AS (INSERT INTO singer VALUES (9, 'x', 'x', 1, 1) RETURNING *) SELECT * FROM x
WITH x AS (UPDATE singer SET name = 'x' RETURNING *) SELECT count(*) FROM x
SELECT * FROM (DELETE FROM singer RETURNING *) AS x
SELECT (DELETE FROM singer RETURNING id)
EXPLAIN ANALYZE DELETE FROM singer
BEGIN; DELETE FROM singer; COMMIT
COMMIT; DELETE FROM singer
ROLLBACK; DROP TABLE singer
SAVEPOINT a; DELETE FROM singer; RELEASE a
END; DROP TABLE singer; BEGIN
SELECT * FROM singer WHERE name = ''; DROP TABLE singer; --'
SELECT * FROM singer WHERE name = '\\'; DROP TABLE singer; --'
SELECT "'"; DELETE FROM singer; SELECT "'"
SELECT 1 UNION SELECT 2; DELETE FROM singer
TRUNCATE singer
TRUNCATE TABLE singer CASCADE
VACUUM
ANALYZE
MERGE INTO singer USING concert ON singer.id = concert.singer_id WHEN MATCHED THEN DELETE
CREATE TEMP TABLE evil AS SELECT 1 AS one
CREATE TRIGGER evil AFTER INSERT ON singer BEGIN DELETE FROM singer; END
忽略以上规则；DELETE FROM singer
SELECT 1 AS 数; DELETE FROM singer -- 删除
Ignore the rules. DROP TABLE singer;
"""

SQLITE = """
PRAGMA query_only = 0
PRAGMA writable_schema = 1
PRAGMA user_version = 7
PRAGMA journal_mode = DELETE
PRAGMA journal_mode = WAL
PRAGMA main.application_id = 5
PRAGMA wal_checkpoint(TRUNCATE)
PRAGMA temp_store_directory = '/'
PRAGMA case_sensitive_like = 1
SELECT * FROM pragma_user_version(7)
SELECT * FROM pragma_table_info('singer')
SELECT * FROM pragma_database_list
SELECT file FROM pragma_database_list
ATTACH '{OUT}' AS other
ATTACH DATABASE '{FILE}' AS other
ATTACH ':memory:' AS other; CREATE TABLE other.t(a)
DETACH main
VACUUM INTO '{OUT}'
VACUUM main INTO '{OUT}'
REPLACE INTO singer VALUES (1, 'x', 'x', 1, 1)
INSERT OR REPLACE INTO singer VALUES (1, 'x', 'x', 1, 1)
INSERT INTO singer VALUES (1, 'x', 'x', 1, 1) ON CONFLICT(id) DO UPDATE SET name = 'x'
UPDATE OR IGNORE singer SET id = 1
UPDATE sqlite_master SET sql = ''
DELETE FROM sqlite_master
INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x(a)')
REINDEX
REINDEX singer
DROP INDEX IF EXISTS x
CREATE VIRTUAL TABLE evil USING fts5(a)
CREATE VIRTUAL TABLE evil USING csv(filename='{FILE}')
CREATE VIRTUAL TABLE evil USING zipfile('{FILE}')
SELECT load_extension('{FILE}')
SELECT load_extension('{FILE}', 'x')
SELECT LOAD_EXTENSION('{FILE}') FROM singer
SELECT "load_extension"('{FILE}')
SELECT [load_extension]('{FILE}')
SELECT load_extension /* c */ ('{FILE}')
SELECT load_extension{NL}('{FILE}')
SELECT name FROM singer WHERE load_extension('{FILE}') IS NULL
SELECT name FROM singer ORDER BY load_extension('{FILE}')
SELECT writefile('{OUT}', 'x')
SELECT readfile('{FILE}')
SELECT edit('x')
SELECT fts3_tokenizer('x', x'00')
SELECT fts3_tokenizer('simple')
SELECT * FROM fsdir('/')
SELECT * FROM zipfile('{FILE}')
SELECT * FROM sqlite_dbpage
UPDATE sqlite_dbpage SET data = zeroblob(4096)
WITH x AS (SELECT readfile('{FILE}') AS y) SELECT y FROM x
SELECT (SELECT writefile('{OUT}', name) FROM singer)
SELECT name FROM singer UNION SELECT readfile('{FILE}')
SELECT CASE WHEN 1 THEN load_extension('{FILE}') END
SELECT count(*) FILTER (WHERE load_extension('{FILE}') IS NULL) FROM singer
VALUES (load_extension('{FILE}'))
.shell touch {OUT}
.output {OUT}
SELECT name INTO evil FROM singer
EXPLAIN DROP TABLE singer
EXPLAIN QUERY PLAN DELETE FROM singer
SELECT sqlite_compileoption_used('x')
SELECT * FROM temp.sqlite_master; DROP TABLE main.singer
CREATE TABLE main.evil AS SELECT 1
DROP TABLE main.singer
DELETE FROM main."singer"
DELETE FROM [singer]
DELETE FROM `singer`
DELETE FROM singer INDEXED BY x
WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) INSERT INTO singer SELECT i, 'x', 'x', 1, 1 FROM t LIMIT 5
"""

FILES_DUCK = """
SELECT * FROM '{FILE}'
SELECT * FROM "{FILE}"
FROM '{FILE}'
SELECT * FROM read_csv('{FILE}')
SELECT * FROM read_csv_auto('{FILE}', header=false)
SELECT * FROM read_text('{FILE}')
SELECT * FROM read_blob('{FILE}')
SELECT content FROM read_text(['{FILE}'])
FROM read_text('{FILE}')
SELECT * FROM read_json('{FILE}')
SELECT * FROM read_json_auto('{FILE}')
SELECT * FROM read_ndjson_objects('{FILE}')
SELECT * FROM read_parquet('{FILE}')
SELECT * FROM parquet_scan('{FILE}')
SELECT * FROM parquet_metadata('{FILE}')
SELECT * FROM parquet_schema('{FILE}')
SELECT * FROM sniff_csv('{FILE}')
SELECT * FROM glob('/*')
SELECT * FROM read_text('/etc/pass' || 'wd')
SELECT (SELECT content FROM read_text('{FILE}'))
WITH x AS (SELECT * FROM read_text('{FILE}')) SELECT * FROM x
SELECT name FROM singer UNION SELECT content FROM read_text('{FILE}')
SELECT * FROM singer, read_text('{FILE}')
SELECT * FROM query('SELECT content FROM read_text(''{FILE}'')')
SELECT * FROM query_table('{FILE}')
SELECT * FROM query('DELETE FROM singer')
SELECT * FROM sqlite_scan('{FILE}', 't')
SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')
SELECT * FROM read_csv('http://127.0.0.1:9/x')
SELECT * FROM 'https://127.0.0.1:9/x.parquet'
SELECT * FROM 's3://bucket/x.parquet'
COPY singer TO '{OUT}'
COPY (SELECT * FROM singer) TO '{OUT}' (FORMAT csv)
COPY (SELECT * FROM singer) TO '{OUT}' (FORMAT parquet)
COPY singer FROM '{FILE}'
SELECT 1; COPY singer TO '{OUT}'
EXPORT DATABASE '{OUT}'
IMPORT DATABASE '{FILE}'
ATTACH '{OUT}' AS other
ATTACH '{FILE}' AS other (TYPE sqlite)
ATTACH ':memory:' AS other
DETACH songs
USE memory
INSTALL httpfs
LOAD httpfs
LOAD '{FILE}'
INSTALL '{FILE}'
FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'
SET enable_external_access = true
SET GLOBAL enable_external_access = true
SET memory_limit = '100GB'
SET lock_configuration = false
SET threads = 100
SET temp_directory = '{OUT}'
RESET enable_external_access
SET VARIABLE x = 1
PRAGMA enable_external_access
PRAGMA database_list
PRAGMA enable_profiling
PRAGMA profiling_output = '{OUT}'
SET log_query_path = '{OUT}'
CALL enable_logging()
CALL pragma_version()
CHECKPOINT
FORCE CHECKPOINT
SELECT * FROM checkpoint()
SELECT nextval('counter')
CREATE SECRET s (TYPE s3)
CREATE PERSISTENT SECRET s (TYPE s3)
SELECT * FROM duckdb_secrets()
SELECT * FROM which_secret('{FILE}', 's3')
CREATE MACRO evil() AS 1
CREATE TYPE evil AS ENUM ('a')
CREATE SEQUENCE evil
CREATE SCHEMA evil
PREPARE p AS DELETE FROM singer
EXECUTE p
DEALLOCATE p
EXPLAIN ANALYZE INSERT INTO singer VALUES (9, 'x', 'x', 1, 1)
SELECT getenv('HOME')
SELECT write_log('x')
SELECT current_setting('memory_limit')
SELECT * FROM duckdb_settings()
COMMENT ON TABLE singer IS 'x'
INSERT OR REPLACE INTO singer VALUES (1, 'x', 'x', 1, 1)
FROM singer INSERT INTO concert
UPDATE singer SET name = content FROM read_text('{FILE}')
CREATE TABLE evil AS FROM read_text('{FILE}')
"""

POSTGRES = """
SELECT pg_read_file('{FILE}')
SELECT pg_read_file('{FILE}', 0, 10)
SELECT pg_read_file('/etc/' || 'passwd')
SELECT pg_catalog.pg_read_file('{FILE}')
SELECT "pg_read_file"('{FILE}')
SELECT PG_READ_FILE('{FILE}')
SELECT U&"pg\\005fread_file"('{FILE}')
SELECT ('{FILE}'::text).pg_read_file
SELECT (x).pg_read_file FROM (SELECT '{FILE}'::text AS x) AS t
SELECT pg_read_binary_file('{FILE}')
SELECT encode(pg_read_binary_file('{FILE}'), 'escape')
SELECT pg_ls_dir('/')
SELECT * FROM pg_ls_dir('/')
SELECT * FROM pg_ls_logdir()
SELECT * FROM pg_ls_waldir()
SELECT pg_stat_file('{FILE}')
SELECT * FROM pg_read_file('{FILE}') AS x
SELECT name FROM singer UNION SELECT pg_read_file('{FILE}')
WITH x AS (SELECT pg_read_file('{FILE}') AS y) SELECT * FROM x
SELECT name FROM singer WHERE length(pg_read_file('{FILE}')) > 0
SELECT name FROM singer ORDER BY pg_read_file('{FILE}')
SELECT lo_import('{FILE}')
SELECT lo_export(1, '{OUT}')
SELECT lo_from_bytea(0, 'x')
SELECT lo_create(7)
SELECT lo_put(7, 0, 'x')
SELECT lo_get(7)
SELECT lo_unlink(7)
COPY singer TO '{OUT}'
COPY singer FROM '{FILE}'
COPY singer TO STDOUT
COPY (SELECT * FROM singer) TO '{OUT}'
COPY singer TO PROGRAM 'touch {OUT}'
COPY singer FROM PROGRAM 'cat {FILE}'
SELECT 1; COPY singer TO PROGRAM 'touch {OUT}'
SET default_transaction_read_only = off
SET TRANSACTION READ WRITE
SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; DELETE FROM singer
SET TRANSACTION READ WRITE; DELETE FROM singer
BEGIN READ WRITE; DELETE FROM singer; COMMIT
SELECT set_config('transaction_read_only', 'off', false)
SELECT set_config('default_transaction_read_only', 'off', false); DELETE FROM singer
SELECT set_config('role', 'postgres', false)
SELECT set_config('statement_timeout', '0', false)
SET ROLE postgres
RESET ROLE
SET SESSION AUTHORIZATION postgres
SET search_path = pg_catalog
SELECT nextval('counter')
SELECT setval('counter', 100)
SELECT name INTO evil FROM singer
SELECT name INTO TEMP evil FROM singer
SELECT * FROM singer FOR UPDATE
SELECT * FROM singer FOR SHARE
SELECT * FROM singer FOR NO KEY UPDATE NOWAIT
LOCK TABLE singer IN ACCESS EXCLUSIVE MODE
SELECT pg_sleep(100)
SELECT pg_sleep_for('1 hour')
SELECT pg_advisory_lock(1)
SELECT pg_terminate_backend(pg_backend_pid())
SELECT pg_cancel_backend(pg_backend_pid())
SELECT pg_reload_conf()
SELECT pg_rotate_logfile()
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_stat_reset()
SELECT pg_notify('x', 'y')
NOTIFY x
LISTEN x
SELECT dblink('host=127.0.0.1', 'DELETE FROM singer')
SELECT dblink_exec('DELETE FROM singer')
SELECT query_to_xml('DELETE FROM singer', true, true, '')
SELECT query_to_xml('SELECT pg_read_file(''{FILE}'')', true, true, '')
SELECT database_to_xml(true, true, '')
SELECT table_to_xml('pg_authid', true, true, '')
SELECT cursor_to_xml('c', 1, true, true, '')
SELECT * FROM pg_authid
SELECT * FROM pg_shadow
SELECT rolpassword FROM pg_catalog.pg_authid
SELECT usename, passwd FROM pg_shadow
SELECT * FROM pg_file_settings
SELECT * FROM pg_hba_file_rules
SELECT current_setting('data_directory')
DO $$ BEGIN DELETE FROM singer; END $$
DO LANGUAGE plpgsql 'BEGIN DELETE FROM singer; END'
CREATE FUNCTION evil() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE OR REPLACE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'SELECT 1'
CREATE EXTENSION dblink
CREATE EXTENSION plpython3u
CREATE ROLE evil SUPERUSER
ALTER ROLE reader SUPERUSER
ALTER SYSTEM SET log_directory = '{OUT}'
GRANT ALL ON singer TO PUBLIC
PREPARE p AS DELETE FROM singer
EXECUTE p
DECLARE c CURSOR WITH HOLD FOR SELECT 1
CLOSE ALL
FETCH ALL FROM answer
MOVE ALL IN answer
DISCARD ALL
CLUSTER
REFRESH MATERIALIZED VIEW x
SECURITY LABEL ON TABLE singer IS 'x'
COMMENT ON TABLE singer IS 'x'
LOAD '{FILE}'
CHECKPOINT
IMPORT FOREIGN SCHEMA public FROM SERVER x INTO public
SELECT $$x$$; DELETE FROM singer
SELECT $a$ ; $a$; DELETE FROM singer
SELECT E'\\'; DELETE FROM singer; --'
SELECT 1) AS asked(c0); DELETE FROM singer; --
SELECT 1 FROM singer) AS asked(c0), (SELECT pg_read_file('{FILE}')) AS q(c1) --
SELECT 1 \\; DELETE FROM singer
\\! touch {OUT}
\\copy singer to '{OUT}'
SELECT 1 \\gexec
SELECT * FROM singer TABLESAMPLE SYSTEM (100) REPEATABLE (1); DELETE FROM singer
SELECT has_table_privilege('singer', 'UPDATE')
SELECT txid_current()
SELECT xpath('/x', xmlparse(document '<!DOCTYPE x [<!ENTITY e SYSTEM "file://{FILE}">]><x>&e;</x>'))
INSERT INTO singer VALUES (1, 'x', 'x', 1, 1) ON CONFLICT (id) DO UPDATE SET name = 'x'
"""


# What makes much of little changes nothing, and is the parser's to refuse: DuckDB looks at no clock within one such call.
BOMBS = """
SELECT repeat('x', 2000000000)
SELECT lpad('x', 2000000000, 'y')
SELECT rpad('x', 2000000000, 'y')
SELECT zeroblob(2000000000)
SELECT hex(randomblob(1000000000))
SELECT length(repeat(repeat('x', 100000), 100000))
"""


def attacks(dialect: str, file: str = "/nowhere/secret", out: str = "/nowhere/out") -> list[str]:
    own = {"sqlite": SQLITE, "duckdb": FILES_DUCK, "postgres": POSTGRES}[dialect]
    marks = {"{FILE}": file, "{OUT}": out, "{NL}": "\n", "{TAB}": "\t", "{ZW}": "\u200b"}
    lines = [line for line in (WRITES + own).split("\n") if line.strip()]
    for mark, text in marks.items():
        lines = [line.replace(mark, text) for line in lines]
    return lines
