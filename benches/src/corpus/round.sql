-- One round of schema changes: a warehouse that is built, loaded, reorganised and partly dropped.
-- Variables: s, the round's schema; name, what its role, server, database and so on are called; rows, the size of its
-- tables.
\set ON_ERROR_STOP on
CREATE SCHEMA :s;
SET search_path = :s, public;
SET client_min_messages = error;

CREATE ROLE :name LOGIN;
GRANT USAGE, CREATE ON SCHEMA :s TO :name;
ALTER DEFAULT PRIVILEGES IN SCHEMA :s GRANT SELECT ON TABLES TO :name;
CREATE TYPE state AS ENUM ('new', 'paid', 'sent');
ALTER TYPE state ADD VALUE 'returned';
CREATE TYPE address AS (street text, town text);
CREATE DOMAIN amount AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE SEQUENCE numbers CACHE 10;
SELECT count(nextval('numbers')) FROM generate_series(1, 200);

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day date NOT NULL,
    state state DEFAULT 'new',
    total amount,
    tags int[],
    place point,
    note text
);
COMMENT ON TABLE orders IS 'kept for ten years';
INSERT INTO orders (day, total, tags, place, note)
    SELECT date '2024-01-01' + i % 700, i % 997, ARRAY[i % 50, i % 7], point(i % 360, i % 180), repeat(md5(i::text), 1 + i % 4)
    FROM generate_series(1, :rows) AS i;
CREATE INDEX orders_day ON orders (day) INCLUDE (total);
CREATE INDEX orders_note ON orders USING hash (note);
CREATE INDEX orders_tags ON orders USING gin (tags);
CREATE INDEX orders_place ON orders USING gist (place);
CREATE INDEX orders_quad ON orders USING spgist (place);
CREATE INDEX orders_range ON orders USING brin (day) WITH (pages_per_range = 4, autosummarize = off);
CREATE UNIQUE INDEX CONCURRENTLY orders_expression ON orders ((id * 2)) WHERE state <> 'sent';
INSERT INTO orders (day, total, tags, place, note)
    SELECT current_date, i, ARRAY[i], point(i, -i), 'late' FROM generate_series(1, 1 + :rows / 20) AS i;
UPDATE orders SET state = 'paid', total = total + 1 WHERE id % 11 = 0;
DELETE FROM orders WHERE id % 17 = 0;
VACUUM (INDEX_CLEANUP on) orders;
ANALYZE orders;
CREATE STATISTICS orders_together ON day, state FROM orders;
ANALYZE orders;

CREATE TABLE lines (
    order_id bigint REFERENCES orders,
    number int,
    what text,
    PRIMARY KEY (order_id, number)
) PARTITION BY RANGE (order_id);
CREATE TABLE lines_first PARTITION OF lines FOR VALUES FROM (0) TO (1000);
CREATE TABLE lines_rest PARTITION OF lines DEFAULT;
INSERT INTO lines SELECT id, 1, 'something' FROM orders;
ALTER TABLE lines DETACH PARTITION lines_first;
ALTER TABLE lines ATTACH PARTITION lines_first FOR VALUES FROM (0) TO (1000);

CREATE TABLE documents (id int PRIMARY KEY, body text, scan bytea);
ALTER TABLE documents ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO documents
    SELECT i, repeat(md5(i::text), 500), decode(repeat(md5((i + 7)::text), 200), 'hex') FROM generate_series(1, 1 + :rows / 200) AS i;
UPDATE documents SET body = body || '.' WHERE id % 3 = 0;
SELECT lo_from_bytea(0, decode(repeat('c0ffee', 3000), 'hex')) AS object \gset
SELECT lo_put(:object, 5000, '\x00');
SELECT lo_unlink(:object);

CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END $$;
CREATE TRIGGER orders_touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touched();
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT';
CREATE AGGREGATE product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE CAST (address AS text) WITH INOUT;
CREATE COLLATION plain (LOCALE = 'C');
CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
CREATE VIEW recent AS SELECT id, day FROM orders WHERE day > '2025-01-01';
CREATE OR REPLACE VIEW recent AS SELECT id, day, state FROM orders WHERE day > '2025-06-01';
CREATE MATERIALIZED VIEW per_day AS SELECT day, count(*) AS orders FROM orders GROUP BY day;
CREATE UNIQUE INDEX per_day_key ON per_day (day);
UPDATE orders SET total = 0 WHERE id % 101 = 0;
REFRESH MATERIALIZED VIEW CONCURRENTLY per_day;
REFRESH MATERIALIZED VIEW per_day;
CREATE UNLOGGED TABLE scratchpad (line text);
INSERT INTO scratchpad SELECT 'not logged' FROM generate_series(1, 100);
CREATE RULE kept AS ON DELETE TO scratchpad DO INSTEAD NOTHING;
CREATE POLICY own ON documents USING (id > 0);
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
CREATE FOREIGN DATA WRAPPER :name;
CREATE SERVER :name FOREIGN DATA WRAPPER :name;
CREATE USER MAPPING FOR :name SERVER :name;
CREATE FOREIGN TABLE elsewhere (a int) SERVER :name;
CREATE PUBLICATION :name FOR TABLE orders;

ALTER TABLE orders ADD COLUMN weight int DEFAULT 5;
ALTER TABLE orders ALTER COLUMN weight TYPE bigint;
ALTER TABLE orders ADD CONSTRAINT heavy CHECK (weight > 0) NOT VALID;
ALTER TABLE orders VALIDATE CONSTRAINT heavy;
ALTER TABLE orders DROP COLUMN tags;
ALTER TABLE orders RENAME note TO remark;
ALTER TABLE documents SET (fillfactor = 70);
ALTER TABLE documents OWNER TO :name;
ALTER TABLE scratchpad SET LOGGED;
CLUSTER orders USING orders_day;
REINDEX TABLE orders;
REINDEX INDEX CONCURRENTLY orders_place;
VACUUM FULL documents;
VACUUM FREEZE lines_rest;

-- Subtransactions, an abort, two-phase commits, row locks of two transactions, messages.
BEGIN;
INSERT INTO documents VALUES (-1, 'a', 'b');
SAVEPOINT first;
INSERT INTO documents VALUES (-2, 'a', 'b');
ROLLBACK TO first;
SAVEPOINT second;
SELECT count(*) FROM (SELECT 1 FROM documents WHERE id = -1 FOR SHARE) AS locked;
UPDATE documents SET body = 'c' WHERE id = -1;
COMMIT;
BEGIN;
CREATE TABLE never (a int);
DROP TABLE scratchpad;
ROLLBACK;
BEGIN;
INSERT INTO documents VALUES (-3, 'a', 'b');
CREATE TABLE prepared (a int);
PREPARE TRANSACTION :'s';
COMMIT PREPARED :'s';
BEGIN;
DELETE FROM documents WHERE id = -3;
PREPARE TRANSACTION :'s';
ROLLBACK PREPARED :'s';
SELECT pg_logical_emit_message(false, 'walstream', 'a message');

CREATE TABLE brief AS SELECT * FROM orders LIMIT 100;
TRUNCATE brief;
CREATE DATABASE :name TEMPLATE template0 STRATEGY wal_log;
ALTER DATABASE :name SET work_mem = '5MB';
DROP DATABASE :name;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE :name LOCATION '';
ALTER TABLE brief SET TABLESPACE :name;
DROP TABLE brief;
DROP TABLESPACE :name;
DROP INDEX orders_expression;
DROP MATERIALIZED VIEW per_day;
DROP PUBLICATION :name;
DROP TABLE lines;
