-- Additions for a time, who asked for them, and what leads move within their teams. Additions are JSON
-- arrays of pairs: dimension, amount in ledger units.

-- The sum of the grants that count now, kept with what they add to.
ALTER TABLE quota ADD COLUMN granted TEXT NOT NULL DEFAULT '[]';
ALTER TABLE member ADD COLUMN granted TEXT NOT NULL DEFAULT '[]';

-- To a user outside teams, to a team's pool, or (both) to a member, from the pool.
CREATE TABLE quota_grant (
    id         TEXT PRIMARY KEY,
    team_id    TEXT REFERENCES team (id) ON DELETE CASCADE,
    user_id    TEXT REFERENCES user (id) ON DELETE CASCADE,
    added      TEXT NOT NULL,
    from_at    INTEGER NOT NULL,
    until_at   INTEGER,
    state      TEXT NOT NULL
               CHECK (state = 'planned' OR state = 'active' OR state = 'ended' OR state = 'revoked'),
    given_by   TEXT NOT NULL,
    reason     TEXT,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER,
    CHECK (team_id IS NOT NULL OR user_id IS NOT NULL)
) STRICT;
CREATE INDEX quota_grant_live ON quota_grant (state, from_at)
    WHERE state = 'planned' OR state = 'active';

CREATE TABLE quota_request (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    team_id    TEXT REFERENCES team (id) ON DELETE CASCADE,
    added      TEXT NOT NULL,
    until_at   INTEGER,
    reason     TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state = 'open' OR state = 'approved' OR state = 'denied'
                                    OR state = 'withdrawn' OR state = 'expired'),
    created_at INTEGER NOT NULL,
    answered_at INTEGER,
    answered_by TEXT,
    answer     TEXT,
    grant_id   TEXT REFERENCES quota_grant (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX quota_request_open ON quota_request (created_at) WHERE state = 'open';

CREATE TABLE redistribution (
    id         TEXT PRIMARY KEY,
    team_id    TEXT NOT NULL REFERENCES team (id) ON DELETE CASCADE,
    moves      TEXT NOT NULL,
    made_by    TEXT NOT NULL,
    reason     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    state      TEXT NOT NULL CHECK (state = 'made' OR state = 'undone' OR state = 'expired'),
    ended_at   INTEGER
) STRICT;
CREATE INDEX redistribution_team ON redistribution (team_id, id);
CREATE INDEX redistribution_due ON redistribution (expires_at)
    WHERE state = 'made' AND expires_at IS NOT NULL;
