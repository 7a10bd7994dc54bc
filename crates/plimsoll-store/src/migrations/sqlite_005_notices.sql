-- What people are told, written in the transaction that made it so.
CREATE TABLE notice (
    id     TEXT PRIMARY KEY,
    -- What is told under one key is told once.
    key    TEXT NOT NULL UNIQUE,
    at     INTEGER NOT NULL,
    -- JSON, for every channel the same.
    event  TEXT NOT NULL,
    -- Administrators are among those who are told.
    admins INTEGER NOT NULL,
    -- Its deliveries are written.
    spread INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX notice_new ON notice (id) WHERE spread = 0;

-- Who is told: an inbox. Without a user: the administrators who are no users.
CREATE TABLE inbox (
    id        TEXT PRIMARY KEY,
    notice_id TEXT NOT NULL REFERENCES notice (id) ON DELETE CASCADE,
    user_id   TEXT REFERENCES user (id) ON DELETE CASCADE,
    read_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX inbox_once ON inbox (notice_id, coalesce(user_id, ''));
CREATE INDEX inbox_of ON inbox (coalesce(user_id, ''), id);
CREATE INDEX inbox_unread ON inbox (coalesce(user_id, '')) WHERE read_at IS NULL;

-- A message on its way over a channel. Its id goes with it each time it is tried.
CREATE TABLE delivery (
    id         TEXT PRIMARY KEY,
    notice_id  TEXT NOT NULL REFERENCES notice (id) ON DELETE CASCADE,
    user_id    TEXT REFERENCES user (id) ON DELETE CASCADE,
    channel    TEXT NOT NULL CHECK (channel = 'mail' OR channel = 'webhook' OR channel = 'slack'),
    state      TEXT NOT NULL CHECK (state = 'waiting' OR state = 'sent' OR state = 'failed'),
    tries      INTEGER NOT NULL DEFAULT 0,
    next_at    INTEGER NOT NULL,
    settled_at INTEGER,
    error      TEXT
) STRICT;
CREATE INDEX delivery_due ON delivery (next_at) WHERE state = 'waiting';
CREATE INDEX delivery_notice ON delivery (notice_id);

-- Mail is wanted.
ALTER TABLE user ADD COLUMN mail INTEGER NOT NULL DEFAULT 1;

-- What is watched; JSON.
CREATE TABLE alert_rule (
    name       TEXT PRIMARY KEY,
    rule       TEXT NOT NULL,
    enabled    INTEGER NOT NULL DEFAULT 1,
    changed_at INTEGER NOT NULL
) STRICT;

-- A rule that is met, or was: one row for each rule, entity and dimension that is not over.
CREATE TABLE alert (
    id          TEXT PRIMARY KEY,
    rule        TEXT NOT NULL,
    entity_kind TEXT NOT NULL CHECK (entity_kind = 'system' OR entity_kind = 'team'
                                     OR entity_kind = 'user'),
    entity_id   TEXT NOT NULL,
    -- A user's place in this team; '' outside teams.
    team_id     TEXT NOT NULL,
    name        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state = 'pending' OR state = 'firing' OR state = 'resolved'),
    -- When its condition was first and last seen to hold.
    since_at    INTEGER NOT NULL,
    met_at      INTEGER NOT NULL,
    fired_at    INTEGER,
    resolved_at INTEGER,
    -- The state that was told last, and when.
    told        TEXT,
    told_at     INTEGER,
    -- How it stands; JSON.
    body        TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX alert_live ON alert (rule, entity_id, team_id, name, subject)
    WHERE state <> 'resolved';
CREATE INDEX alert_over ON alert (resolved_at) WHERE state = 'resolved';

CREATE TABLE silence (
    id         TEXT PRIMARY KEY,
    rule       TEXT,
    entity     TEXT,
    subject    TEXT,
    from_at    INTEGER NOT NULL,
    until_at   INTEGER NOT NULL,
    made_by    TEXT NOT NULL,
    reason     TEXT,
    created_at INTEGER NOT NULL
) STRICT;

-- When somebody was last told what was refused: 'team:ID', 'host'.
CREATE TABLE digest (
    whose TEXT PRIMARY KEY,
    at    INTEGER NOT NULL
) STRICT;
