-- References on the engine, outside every tenant's space, that are not everybody's.
CREATE TABLE image_mark (
    -- In full: docker.io/library/python:3.
    reference TEXT PRIMARY KEY,
    -- An administrator's, or a push's that is under way.
    kind      TEXT NOT NULL CHECK (kind IN ('private', 'push')),
    -- Of a push: the image that the reference names meanwhile.
    image     TEXT,
    marked_at INTEGER NOT NULL
) STRICT;
