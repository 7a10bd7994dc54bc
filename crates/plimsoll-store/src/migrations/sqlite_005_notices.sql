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
