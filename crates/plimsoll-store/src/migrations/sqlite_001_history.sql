-- What was measured, over time. Entities are keyed 'system', 'host:NAME', 'team:ID', 'user:ID',
-- 'project:ID', 'container:ID'. Keys of blocks and roll-ups are hour (or day) << 32 | entity.

CREATE TABLE entity (
    id        INTEGER PRIMARY KEY,
    key       TEXT NOT NULL UNIQUE,
    -- The last hour with a block.
    seen      INTEGER NOT NULL,
    name      TEXT,
    user_id   TEXT,
    team_id   TEXT,
    project   TEXT,
    image     TEXT,
    host      TEXT
) STRICT;

-- The log: a row a reading, until its hour is cut into blocks.
CREATE TABLE tick (
    at_ms INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;

-- An entity's hour: every sample, and five minutes each.
CREATE TABLE raw (
    key  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE five (
    key  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- An entity's day: how its values are distributed.
CREATE TABLE spread (
    key  INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- The last reading of users, teams and the system, in the metrics' units.
CREATE TABLE current (
    entity          INTEGER PRIMARY KEY,
    at_ms           INTEGER NOT NULL,
    cpu             INTEGER NOT NULL,
    memory          INTEGER NOT NULL,
    storage         INTEGER NOT NULL,
    containers      INTEGER NOT NULL,
    -- Bytes a second, both ways together.
    network         INTEGER NOT NULL,
    peak_cpu        INTEGER NOT NULL,
    peak_memory     INTEGER NOT NULL,
    peak_containers INTEGER NOT NULL,
    runtime_ms      INTEGER NOT NULL,
    cpu_ns          INTEGER NOT NULL,
    memory_gb_hours REAL NOT NULL
) STRICT;

-- The tables of hours and days have two columns a metric: its sum (units times seconds, or events) and
-- its maximum. They are made from the list of metrics.
