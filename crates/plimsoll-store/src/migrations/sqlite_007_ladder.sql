-- What is to be done where a limit is exceeded, JSON; a quota without has its class's.
ALTER TABLE quota_class ADD COLUMN ladder TEXT NOT NULL DEFAULT '{}';
ALTER TABLE quota ADD COLUMN ladder TEXT;

-- What was announced and done to containers because of a violation.
CREATE TABLE step (
    id             TEXT PRIMARY KEY,
    violation_id   TEXT NOT NULL REFERENCES violation (id) ON DELETE CASCADE,
    reservation_id TEXT NOT NULL,
    step           TEXT NOT NULL CHECK (step = 'throttle' OR step = 'pause' OR step = 'stop'),
    -- How much it is to free, in the violation's dimension.
    frees          INTEGER NOT NULL,
    -- Of throttle: the millicores that are left.
    cpu_to         INTEGER,
    announced_at   INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    done_at        INTEGER,
    -- When it was taken back, or did not come to it.
    ended_at       INTEGER
) STRICT;
CREATE INDEX step_of ON step (violation_id);
CREATE UNIQUE INDEX step_open ON step (reservation_id, step) WHERE ended_at IS NULL;

-- The restart policy a container has again when its owner starts it, JSON: it was stopped for good.
ALTER TABLE reservation ADD COLUMN restart_kept TEXT;

-- What is used up in a day, a week or a month: how much was used in all when the period began.
CREATE TABLE budget (
    entity_id TEXT NOT NULL,
    dimension TEXT NOT NULL,
    from_at   INTEGER NOT NULL,
    until_at  INTEGER NOT NULL,
    mark      INTEGER NOT NULL,
    -- The percents of it that people were told of last.
    told      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (entity_id, dimension)
) STRICT, WITHOUT ROWID;
-- Where an entity's days begin; null is UTC. Another one counts from the next period on.
ALTER TABLE quota ADD COLUMN time_zone TEXT;
