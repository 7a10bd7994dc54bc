-- Network and disks, each container by itself, and when the last tick was. Entities are keyed
-- 'unmanaged', 'project:ID' and 'container:ID' besides.

ALTER TABLE total ADD COLUMN received_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN sent_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN block_read_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN block_written_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN oom_kills INTEGER NOT NULL DEFAULT 0;
-- The part of cpu_ns that was seen in containers, not only in the cgroup above them.
ALTER TABLE total ADD COLUMN seen_cpu_ns INTEGER NOT NULL DEFAULT 0;

-- A container's counters as accounted. They begin anew when it starts anew.
CREATE TABLE container (
    id                  TEXT PRIMARY KEY,
    started_ms          INTEGER NOT NULL,
    cpu_ns              INTEGER NOT NULL,
    received_bytes      INTEGER NOT NULL,
    sent_bytes          INTEGER NOT NULL,
    block_read_bytes    INTEGER NOT NULL,
    block_written_bytes INTEGER NOT NULL,
    oom_kills           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row.
CREATE TABLE last_tick (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    at_ms INTEGER NOT NULL
) STRICT;
