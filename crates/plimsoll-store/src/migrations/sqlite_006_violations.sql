-- Violations: the fourth kind, the containers behind them, and since when a limit holds again.
CREATE TABLE violation_anew (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind = 'reserved' OR kind = 'used' OR kind = 'held'
                                    OR kind = 'throttled'),
    level      TEXT NOT NULL,
    entity_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    dimension  TEXT NOT NULL,
    most       INTEGER NOT NULL,
    current    INTEGER NOT NULL,
    peak       INTEGER NOT NULL,
    cause      TEXT NOT NULL,
    -- The containers that held most at the peak, a JSON array.
    behind     TEXT NOT NULL DEFAULT '[]',
    opened_at  INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    -- Since when it is not exceeded; it closes when that has lasted.
    calm_at    INTEGER,
    closed_at  INTEGER
) STRICT;
INSERT INTO violation_anew (id, kind, level, entity_id, name, dimension, most, current, peak, cause,
                            opened_at, updated_at, closed_at)
    SELECT id, kind, level, entity_id, name, dimension, most, current, peak, cause, opened_at,
           updated_at, closed_at FROM violation ORDER BY rowid;
DROP TABLE violation;
ALTER TABLE violation_anew RENAME TO violation;
-- Hosts share the system's quota and its id; the name tells them apart.
CREATE UNIQUE INDEX violation_open ON violation (kind, level, entity_id, name, dimension)
    WHERE closed_at IS NULL;
