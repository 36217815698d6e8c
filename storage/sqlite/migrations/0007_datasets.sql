-- Sets of calls that were put together by hand or by a filter. A row is a copy: what becomes of the call afterwards, be
-- it feedback or its removal, does not change it, and a copy may be edited.

CREATE TABLE datasets (
    number       INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    organisation TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    meta         TEXT,    -- a JSON object
    created_at   INTEGER NOT NULL -- microseconds since the epoch
) STRICT;

CREATE INDEX datasets_by_organisation ON datasets (organisation);

CREATE TABLE dataset_rows (
    number           INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    dataset          INTEGER NOT NULL REFERENCES datasets (number) ON DELETE CASCADE,
    request_id       TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    copied           TEXT    NOT NULL, -- the call with its scores and feedback as JSON, but for the bytes of its bodies
    request          BLOB,    -- packed as *_packing says, however large
    request_packing  TEXT,
    response         BLOB,
    response_packing TEXT,
    size             INTEGER NOT NULL, -- of both bodies, in bytes
    UNIQUE (dataset, request_id)
) STRICT;
