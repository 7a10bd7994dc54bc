-- What is watched; JSON.
CREATE TABLE alert_rule (
    name TEXT PRIMARY KEY,
    rule TEXT NOT NULL
) STRICT;

-- Where each subject of a rule stands, while anything is the matter with it.
CREATE TABLE alert (
    rule      TEXT NOT NULL,
    -- Whom it is about: kind, id and team.
    subject   TEXT NOT NULL,
    -- A dimension, a task, a violation.
    part      TEXT NOT NULL,
    about     TEXT NOT NULL,
    standing  TEXT NOT NULL,
    -- The last value and its words; JSON.
    seen      TEXT NOT NULL,
    silenced  INTEGER NOT NULL,
    -- When its group was told of last.
    told_at   INTEGER,
    PRIMARY KEY (rule, subject, part)
) STRICT;

-- Whom nobody is told of for a while.
CREATE TABLE silence (
    id       TEXT PRIMARY KEY,
    matcher  TEXT NOT NULL,
    until_at INTEGER NOT NULL,
    by       TEXT NOT NULL,
    reason   TEXT
) STRICT;
