-- The ledger. Ids are UUIDs as text, times integer milliseconds since the Unix epoch, amounts and
-- limits JSON arrays in the order of the table `dimension` (null = unlimited).

CREATE TABLE dimension (
    idx  INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL
) STRICT;

CREATE TABLE host (
    name       TEXT PRIMARY KEY,
    cpu        INTEGER NOT NULL,
    memory     INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE quota_class (
    name     TEXT PRIMARY KEY,
    limits   TEXT NOT NULL,
    defaults TEXT NOT NULL
) STRICT;

CREATE TABLE user (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    email        TEXT,
    os_uid       INTEGER UNIQUE,
    role         TEXT NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member', 'viewer')),
    default_team TEXT REFERENCES team (id) ON DELETE SET NULL,
    suspended    INTEGER NOT NULL DEFAULT 0,
    draining     INTEGER NOT NULL DEFAULT 0,
    -- Which span of host ports is theirs, counted from zero.
    port_slot    INTEGER NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE team (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    mode       TEXT NOT NULL CHECK (mode IN ('aggregate', 'fixed')),
    -- Derived from the quota row and the members, in the transaction that changes either.
    total      TEXT NOT NULL,
    pool       TEXT NOT NULL,
    suspended  INTEGER NOT NULL DEFAULT 0,
    draining   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE member (
    team_id   TEXT NOT NULL REFERENCES team (id) ON DELETE CASCADE,
    user_id   TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    role      TEXT NOT NULL CHECK (role IN ('lead', 'member')),
    allotment TEXT NOT NULL,
    borrow    TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (team_id, user_id)
) STRICT;
CREATE INDEX member_by_user ON member (user_id);

CREATE TABLE project (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    team_id    TEXT REFERENCES team (id) ON DELETE CASCADE,
    user_id    TEXT REFERENCES user (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    CHECK ((team_id IS NULL) <> (user_id IS NULL))
) STRICT;
CREATE UNIQUE INDEX project_name ON project (coalesce(team_id, user_id), name);

-- A user's or the system's limits; of a team: its pool (aggregate) or its limit (fixed).
CREATE TABLE quota (
    entity_id  TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('system', 'team', 'user')),
    class      TEXT NOT NULL,
    limits     TEXT NOT NULL,
    overcommit INTEGER NOT NULL DEFAULT 1000,
    mode       TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'shadow', 'off')),
    version    INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Balances. A row changes only in the transaction that changes the reservation behind it.
-- Keys: 'system', 'host:NAME', 'user:ID' (outside teams), 'team:ID', 'member:TEAM:USER'.
CREATE TABLE account (
    key      TEXT PRIMARY KEY,
    reserved TEXT NOT NULL,
    -- Of a team: what its members hold together above their allotments.
    overflow TEXT NOT NULL DEFAULT '[]'
) STRICT, WITHOUT ROWID;

CREATE TABLE reservation (
    id             TEXT PRIMARY KEY,
    host           TEXT NOT NULL,
    -- What is kept on the engine; the columns named for a container hold any kind's id and name.
    kind           TEXT NOT NULL DEFAULT 'container'
                   CHECK (kind = 'container' OR kind = 'volume' OR kind = 'network'
                          OR kind = 'image'),
    user_id        TEXT NOT NULL,
    team_id        TEXT,
    project        TEXT,
    -- Alternatives, here and above: a list of three builds a temporary table for each row written.
    state          TEXT NOT NULL
                   CHECK (state = 'pending' OR state = 'active' OR state = 'stopped'
                          OR state = 'released' OR state = 'void'),
    claim          TEXT NOT NULL,
    origin         TEXT NOT NULL
                   CHECK (origin = 'gateway' OR origin = 'api' OR origin = 'adopted'),
    decision_id    TEXT,
    caller         TEXT,
    idem_key       TEXT,
    fingerprint    TEXT,
    container_id   TEXT,
    container_name TEXT,
    image          TEXT,
    -- Millicores, both or none: what a container had before it was held to a lowered limit, and
    -- what it was held to.
    clamped_from   INTEGER,
    clamped_to     INTEGER,
    expires_at     INTEGER,
    created_at     INTEGER NOT NULL,
    changed_at     INTEGER NOT NULL,
    started_at     INTEGER,
    -- Of a volume nobody named: the container's reservation after whose end it goes.
    goes_with      TEXT,
    -- Of a container: the host's folders it mounts, a JSON array.
    host_mounts    TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX reservation_goes ON reservation (goes_with) WHERE goes_with IS NOT NULL;
CREATE UNIQUE INDEX reservation_key ON reservation (caller, idem_key) WHERE idem_key IS NOT NULL;
-- The id of a container or network never comes again; what is known by name may.
CREATE UNIQUE INDEX reservation_container ON reservation (host, container_id)
    WHERE container_id IS NOT NULL AND kind <> 'volume' AND kind <> 'image';
CREATE UNIQUE INDEX reservation_named ON reservation (host, kind, container_id)
    WHERE (kind = 'volume' OR kind = 'image') AND state <> 'released' AND state <> 'void';
-- What is live is asked for in these words everywhere (rows::LIVE), or the index is not used. It also
-- keeps the names of a user's live objects of one kind apart; those without a name never clash.
CREATE UNIQUE INDEX reservation_live ON reservation (user_id, container_name, kind)
    WHERE state <> 'released' AND state <> 'void';

CREATE TABLE decision (
    id             TEXT PRIMARY KEY,
    at             INTEGER NOT NULL,
    action         TEXT NOT NULL,
    user_id        TEXT NOT NULL,
    team_id        TEXT,
    project        TEXT,
    host           TEXT NOT NULL,
    requested      TEXT NOT NULL,
    allowed        INTEGER NOT NULL,
    violations     TEXT NOT NULL,
    remedies       TEXT NOT NULL,
    message        TEXT,
    reservation_id TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX decision_refused ON decision (user_id, id) WHERE allowed = 0;

CREATE TABLE violation (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('reserved', 'used', 'held')),
    level      TEXT NOT NULL,
    entity_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    dimension  TEXT NOT NULL,
    most       INTEGER NOT NULL,
    current    INTEGER NOT NULL,
    peak       INTEGER NOT NULL,
    cause      TEXT NOT NULL,
    opened_at  INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    closed_at  INTEGER
) STRICT;
-- Hosts share the system's quota and its id; the name tells them apart.
CREATE UNIQUE INDEX violation_open ON violation (kind, level, entity_id, name, dimension)
    WHERE closed_at IS NULL;

CREATE TABLE token (
    id         TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    user_id    TEXT REFERENCES user (id) ON DELETE CASCADE,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

-- Client certificates. The private keys were never here.
CREATE TABLE cert (
    serial     TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX cert_by_user ON cert (user_id);

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    action      TEXT NOT NULL,
    entity_kind TEXT NOT NULL,
    entity      TEXT NOT NULL,
    before      TEXT,
    after       TEXT,
    reason      TEXT
) STRICT;
CREATE TRIGGER audit_keeps BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;

-- The original design's table, in its units.
CREATE VIEW resource_quotas AS
SELECT q.entity_id AS id, q.kind AS entity_type, q.entity_id, q.class AS quota_type,
       (l.limits ->> '$[0]') / 1000.0 AS max_cpu_cores,
       (l.limits ->> '$[10]') / 100.0 AS max_cpu_percent,
       (l.limits ->> '$[1]') / 1073741824.0 AS max_memory_gb,
       (l.limits ->> '$[11]') / 100.0 AS max_memory_percent,
       (l.limits ->> '$[2]') / 1073741824.0 AS max_storage_gb,
       (l.limits ->> '$[3]') / 1073741824.0 AS max_temp_storage_gb,
       l.limits ->> '$[4]' AS max_containers,
       l.limits ->> '$[5]' AS max_concurrent_containers,
       l.limits ->> '$[8]' AS max_bandwidth_mbps,
       l.limits ->> '$[9]' AS max_connections,
       (l.limits ->> '$[12]') / 3600.0 AS max_runtime_hours,
       (l.limits ->> '$[13]') / 60 AS max_idle_time_minutes,
       q.created_at, q.updated_at
FROM quota q
JOIN (SELECT q.entity_id, coalesce(t.total, q.limits) AS limits
      FROM quota q LEFT JOIN team t ON t.id = q.entity_id) l ON l.entity_id = q.entity_id;
