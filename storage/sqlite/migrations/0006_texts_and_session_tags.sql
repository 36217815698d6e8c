-- What can be searched of bodies: which groups of three characters a call's texts have, so that a search reads the
-- bodies of those calls only that have all of its own. Neither the texts nor the places of the groups are kept. An
-- index that is behind, or not kept at all, makes searches slow and never wrong: what it lacks is read.

CREATE VIRTUAL TABLE call_texts USING fts5(text, content = '', columnsize = 0, detail = none, tokenize = 'trigram');

-- Whoever writes merges too, in steps of a few pages: of itself FTS5 does it in strokes that take a tenth of a second.
INSERT INTO call_texts (call_texts, rank) VALUES ('automerge', 0);
INSERT INTO call_texts (call_texts, rank) VALUES ('crisismerge', 1999);

-- How far the index has come: up to call `last`, but for the calls in text_pending, by a reader of that version.
-- `changes` counts what has happened since to calls that an index step may have read before.
CREATE TABLE text_index (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    changes INTEGER NOT NULL
) STRICT;

INSERT INTO text_index VALUES (1, 0, 0, 0);

CREATE TABLE text_pending (call_id INTEGER PRIMARY KEY) STRICT;

-- A session has one tag or none; it may have it before its first call is there.
CREATE TABLE session_tags (
    organisation TEXT    NOT NULL,
    session_id   TEXT    NOT NULL,
    tag          TEXT    NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (organisation, session_id)
) STRICT, WITHOUT ROWID;
