-- Rows of the log whose hour is cut and that another store has not taken yet.
CREATE TABLE unsent (
    at_ms INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;
