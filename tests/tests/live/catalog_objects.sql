-- One or more of every kind of object that a catalog knows.
CREATE ROLE owner CREATEDB CREATEROLE LOGIN PASSWORD 'secret' CONNECTION LIMIT 7 VALID UNTIL '2040-01-01';
CREATE ROLE reader IN ROLE pg_monitor;
GRANT reader TO owner WITH ADMIN OPTION;
ALTER ROLE owner SET work_mem = '5MB';
ALTER ROLE owner IN DATABASE postgres SET enable_seqscan = off;
GRANT SET ON PARAMETER log_min_duration_statement TO reader;
CREATE SCHEMA app AUTHORIZATION owner;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader;
SET search_path = app, public;
CREATE TYPE mood AS ENUM ('sad', 'fine');
ALTER TYPE mood ADD VALUE 'happy' AFTER 'fine';
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN positive AS int CHECK (VALUE > 0) NOT NULL DEFAULT 1;
CREATE COLLATION plain FROM "C";
CREATE CONVERSION conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE SEQUENCE numbers START 100 INCREMENT 7 CACHE 5;
SELECT nextval('numbers') FROM generate_series(1, 50);
CREATE TABLE item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE plain NOT NULL,
    mood mood DEFAULT 'fine',
    amount positive,
    pair pair,
    span span,
    place point,
    words tsvector,
    list int[],
    double int GENERATED ALWAYS AS (amount * 2) STORED,
    EXCLUDE USING gist (span WITH &&)
);
INSERT INTO item (name, amount, pair, span, place, words, list)
    SELECT 'item ' || i, i, ROW(i, i::text)::pair, span(i, i + 0.5), point(i, -i), to_tsvector('simple', 'word' || i), ARRAY[i, i + 1]
    FROM generate_series(1, 2000) i;
CREATE INDEX item_name ON item (lower(name)) INCLUDE (amount) WHERE amount > 10;
CREATE INDEX item_hash ON item USING hash (name);
CREATE INDEX item_words ON item USING gin (words);
CREATE INDEX item_list ON item USING gin (list);
CREATE INDEX item_place ON item USING spgist (place);
CREATE INDEX item_brin ON item USING brin (id);
CREATE INDEX CONCURRENTLY item_amount ON item (amount);
CREATE STATISTICS item_statistics (dependencies, mcv) ON name, amount FROM item;
ALTER TABLE item ALTER name SET STATISTICS 500, ADD COLUMN late int DEFAULT 42, SET (fillfactor = 80);
CREATE TABLE part (key int, value text) PARTITION BY RANGE (key);
CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (MINVALUE) TO (1000);
CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (1000) TO (MAXVALUE) PARTITION BY HASH (key);
CREATE TABLE part_high_0 PARTITION OF part_high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE part_high_1 PARTITION OF part_high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON part (key);
INSERT INTO part SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
CREATE TABLE parent (a int);
CREATE TABLE child (b bigint REFERENCES item (id) ON DELETE CASCADE DEFERRABLE) INHERITS (parent);
CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 100) AS i;
CREATE TABLE typed OF pair (PRIMARY KEY (a));
CREATE VIEW happy_items WITH (security_barrier) AS SELECT id, name FROM item WHERE mood = 'happy' WITH CHECK OPTION;
CREATE MATERIALIZED VIEW item_count AS SELECT mood, count(*) FROM item GROUP BY mood;
CREATE UNIQUE INDEX ON item_count (mood);
REFRESH MATERIALIZED VIEW CONCURRENTLY item_count;
CREATE RULE no_delete AS ON DELETE TO parent DO INSTEAD NOTHING;
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT i * 2';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.late := 43; RETURN NEW; END $$;
CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$ BEGIN
    FOR i IN 1..n LOOP INSERT INTO parent VALUES (i); COMMIT; END LOOP; END $$;
CALL fill(20);
CREATE TRIGGER stamp BEFORE UPDATE ON item FOR EACH ROW WHEN (OLD.amount < 100) EXECUTE FUNCTION stamp();
UPDATE item SET amount = amount + 1 WHERE id % 3 = 0;
DELETE FROM item WHERE id % 7 = 0;
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION on_ddl();
CREATE AGGREGATE product (int) (SFUNC = int4mul, STYPE = int, INITCOND = '1');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = ===);
CREATE OPERATOR FAMILY family USING btree;
CREATE OPERATOR CLASS backwards FOR TYPE int USING btree FAMILY family AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
CREATE CAST (pair AS text) WITH INOUT AS ASSIGNMENT;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE on_heap2 (i int) USING heap2;
CREATE TEXT SEARCH DICTIONARY dictionary (TEMPLATE = simple);
CREATE TEXT SEARCH CONFIGURATION configuration (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION configuration ALTER MAPPING FOR word WITH dictionary;
CREATE FOREIGN DATA WRAPPER wrapper;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapper OPTIONS (host 'nowhere');
CREATE USER MAPPING FOR owner SERVER elsewhere OPTIONS (secret 'x');
CREATE FOREIGN TABLE abroad (i int) SERVER elsewhere;
CREATE PUBLICATION publication FOR TABLE item (id, name) WHERE (id > 5);
CREATE SUBSCRIPTION subscription CONNECTION 'host=nowhere' PUBLICATION publication WITH (connect = false, slot_name = NONE);
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY only_small ON parent FOR SELECT TO reader USING (a < 10);
GRANT SELECT (id), UPDATE (name) ON item TO reader WITH GRANT OPTION;
SELECT lo_from_bytea(77777, decode(repeat('5a', 50000), 'hex'));
COMMENT ON LARGE OBJECT 77777 IS 'a large object';
COMMENT ON TABLE item IS 'a table';
CREATE LANGUAGE plpgsql2 HANDLER plpgsql_call_handler;
CREATE TABLE wide (id int PRIMARY KEY, body text);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;
INSERT INTO wide SELECT n, (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 30000) i) FROM generate_series(1, 6) n;
CREATE TABLE dropped AS SELECT * FROM part;
DROP TABLE dropped;
TRUNCATE typed;
CLUSTER item USING item_pkey;
VACUUM FULL wide;
VACUUM FULL pg_catalog.pg_class;
REINDEX SYSTEM postgres;
ANALYZE;
