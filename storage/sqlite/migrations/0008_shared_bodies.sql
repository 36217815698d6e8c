-- A chat sends its history again with each turn, so the body of a request mostly stands in that of a later one of its
-- session. Such a body is kept as what it adds to the later one, its base, and packed as "zstd-shared".
--
-- A base is whole itself, so that reading a body takes one other row at most; and being the later one it goes after
-- those that need it where the oldest go first. Where it goes before them they are made whole again.

CREATE TABLE body_bases (
    call_id INTEGER PRIMARY KEY REFERENCES bodies (call_id) ON DELETE CASCADE,
    base    INTEGER NOT NULL REFERENCES bodies (call_id)
) STRICT;

CREATE INDEX body_bases_by_base ON body_bases (base);

-- Up to which call bodies were looked at.
CREATE TABLE sharing (reached INTEGER NOT NULL) STRICT;

INSERT INTO sharing VALUES (0);
