-- What calls add up to, block by block of calls that landed one after the other: a sum over a million calls becomes
-- one over some thousands of rows. Nothing of it is a truth of its own. Whatever changes a call discards its block, and
-- what stands in no block is added up from the calls themselves.

-- A block holds the calls with ids from number * 8192 on, and is made once all of these ids were given out.
CREATE TABLE figure_blocks (
    number  INTEGER PRIMARY KEY,
    build   INTEGER NOT NULL, -- under which its figures stand; made anew it has another one
    begun   INTEGER NOT NULL, -- when, in microseconds since the epoch
    ready   INTEGER NOT NULL,
    lacking TEXT    NOT NULL  -- dimensions with too many values to be kept, as a JSON array
) STRICT;

CREATE TABLE figures (
    build              INTEGER NOT NULL,
    organisation       TEXT    NOT NULL,
    dimension          TEXT    NOT NULL,
    place              INTEGER NOT NULL,
    day                INTEGER NOT NULL, -- in UTC, counted from the epoch
    value              ANY,
    name               TEXT,
    calls              INTEGER NOT NULL,
    failed             INTEGER NOT NULL,
    first_started_at   INTEGER NOT NULL,
    last_started_at    INTEGER NOT NULL,
    first_token        INTEGER,          -- the sum of the times to it, and of how many calls it is known
    first_tokens       INTEGER NOT NULL,
    latency            INTEGER,
    prompt_tokens      INTEGER,
    completion_tokens  INTEGER,
    total_tokens       INTEGER,
    cost               REAL,
    PRIMARY KEY (build, organisation, dimension, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE figure_builds (last INTEGER NOT NULL) STRICT;

INSERT INTO figure_builds VALUES (0);

-- Builds whose figures nobody needs any more.
CREATE TABLE figure_leavings (build INTEGER PRIMARY KEY) STRICT;

CREATE TRIGGER figure_blocks_go AFTER DELETE ON figure_blocks
BEGIN
    INSERT INTO figure_leavings VALUES (OLD.build);
END;

-- A call that lands is in no block yet: its id is the largest there is.
CREATE TRIGGER calls_leave_figures AFTER DELETE ON calls
BEGIN
    DELETE FROM figure_blocks WHERE number = OLD.id >> 13;
END;

CREATE TRIGGER calls_change_figures AFTER UPDATE ON calls
BEGIN
    DELETE FROM figure_blocks WHERE number = OLD.id >> 13;
END;

CREATE TRIGGER properties_join_figures AFTER INSERT ON properties
BEGIN
    DELETE FROM figure_blocks WHERE number = NEW.call_id >> 13;
END;

CREATE TRIGGER properties_leave_figures AFTER DELETE ON properties
BEGIN
    DELETE FROM figure_blocks WHERE number = OLD.call_id >> 13;
END;

CREATE TRIGGER properties_change_figures AFTER UPDATE ON properties
BEGIN
    DELETE FROM figure_blocks WHERE number = OLD.call_id >> 13;
END;
