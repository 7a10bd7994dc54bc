-- A container that takes another one's place, and the part of its claim that the other one charges for
-- both; JSON amounts. Null, both, where it stands alone.
ALTER TABLE reservation ADD COLUMN replaces TEXT;
ALTER TABLE reservation ADD COLUMN shared TEXT;
-- One takes the place of one.
CREATE UNIQUE INDEX reservation_replaces ON reservation (replaces) WHERE replaces IS NOT NULL;
