-- Large bodies lie here in pieces, and bodies.request or bodies.response is NULL: SQLite copies a value several
-- times on its way into the file, so that a body of many megabytes would take many times its size of memory.

CREATE TABLE body_pieces (
    id      INTEGER PRIMARY KEY,
    call_id INTEGER NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    side    TEXT    NOT NULL CHECK (side IN ('request', 'response')),
    data    BLOB    NOT NULL
) STRICT;

CREATE INDEX body_pieces_by_call ON body_pieces (call_id, side);
