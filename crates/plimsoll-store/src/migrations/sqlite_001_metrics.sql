-- What was measured. Entities are keyed 'system', 'team:ID', 'user:ID'.

CREATE TABLE total (
    entity         TEXT PRIMARY KEY,
    runtime_ms     INTEGER NOT NULL,
    cpu_ns         INTEGER NOT NULL,
    -- Decimal text: more than 64 bits in a few years of a large host.
    memory_byte_ms TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE peak (
    entity       TEXT NOT NULL,
    from_ms      INTEGER NOT NULL,
    cpu_milli    INTEGER NOT NULL,
    memory_bytes INTEGER NOT NULL,
    containers   INTEGER NOT NULL,
    PRIMARY KEY (from_ms, entity)
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
    cgroup TEXT PRIMARY KEY,
    cpu_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
