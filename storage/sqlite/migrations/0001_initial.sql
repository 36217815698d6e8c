-- Calls, their bodies and properties, and what people say of them.
--
-- A group of calls arrives as ONE statement, an INSERT of many rows into the view call_arrivals, because the
-- sqlite3 module hands the interpreter lock over once per statement. The triggers below spread each row over the
-- tables and join it with the feedback that came before it; all of it is one statement, so all of it or none.

CREATE TABLE calls (
    id                    INTEGER PRIMARY KEY,
    organisation          TEXT    NOT NULL,
    request_id            TEXT    NOT NULL,
    attempt               INTEGER NOT NULL,
    trace_id              TEXT    NOT NULL,
    span_id               TEXT,
    parent_span_id        TEXT,
    span_name             TEXT,
    session_id            TEXT,
    session_name          TEXT,
    session_path          TEXT,
    user_id               TEXT,
    prompt_id             TEXT,
    prompt_version        TEXT,
    method                TEXT    NOT NULL,
    path                  TEXT    NOT NULL,
    target_url            TEXT    NOT NULL,
    provider              TEXT    NOT NULL,
    started_at            INTEGER NOT NULL, -- microseconds since the epoch
    latency               INTEGER NOT NULL, -- microseconds
    time_to_first_token   INTEGER,          -- microseconds
    status                INTEGER,
    is_stream             INTEGER NOT NULL,
    model_override        TEXT,
    request_model         TEXT,
    response_model        TEXT,
    model                 TEXT GENERATED ALWAYS AS (coalesce(model_override, response_model, request_model)) VIRTUAL,
    provider_response_id  TEXT,
    finish_reason         TEXT,
    error_kind            TEXT,
    error_message         TEXT,
    cost                  REAL,             -- US dollars
    prompt_tokens         INTEGER,
    completion_tokens     INTEGER,
    total_tokens          INTEGER,
    cache_read_tokens     INTEGER,
    cache_write_tokens    INTEGER,
    prompt_audio_tokens   INTEGER,
    completion_audio_tokens INTEGER,
    reasoning_tokens      INTEGER
) STRICT;

CREATE UNIQUE INDEX calls_by_request ON calls (organisation, request_id, attempt);
CREATE INDEX calls_by_trace ON calls (organisation, trace_id);
CREATE INDEX calls_by_time ON calls (organisation, started_at);
CREATE INDEX calls_by_session ON calls (organisation, session_id, started_at) WHERE session_id IS NOT NULL;
CREATE INDEX calls_by_response ON calls (organisation, provider_response_id) WHERE provider_response_id IS NOT NULL;

-- Apart from calls, so that a walk over the figures never pages through the texts.
CREATE TABLE bodies (
    call_id                   INTEGER PRIMARY KEY REFERENCES calls (id) ON DELETE CASCADE,
    request                   BLOB,    -- as on the wire, in its content encoding, then packed as *_packing says
    request_packing           TEXT,
    request_size              INTEGER NOT NULL,
    request_truncated         INTEGER NOT NULL,
    request_omitted           INTEGER NOT NULL,
    request_content_type      TEXT,
    request_content_encoding  TEXT,
    response                  BLOB,
    response_packing          TEXT,
    response_size             INTEGER NOT NULL,
    response_truncated        INTEGER NOT NULL,
    response_omitted          INTEGER NOT NULL,
    response_content_type     TEXT,
    response_content_encoding TEXT
) STRICT;

CREATE TABLE properties (
    call_id INTEGER NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    key     TEXT    NOT NULL, -- the name without its case, which is what names are compared by
    name    TEXT    NOT NULL,
    value   TEXT    NOT NULL,
    PRIMARY KEY (call_id, key)
) STRICT, WITHOUT ROWID;

-- Properties set afterwards; they outlive the call's own and reach attempts that land later.
CREATE TABLE request_properties (
    organisation TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    value        TEXT    NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (organisation, request_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE scores (
    organisation TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    value        REAL    NOT NULL,
    is_boolean   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    PRIMARY KEY (organisation, request_id, name)
) STRICT, WITHOUT ROWID;

-- A rating names a request_id or a session_id. A value names a trace_id; its request_id is filled where the
-- text turned out to be a request's or a response's id.
CREATE TABLE feedback (
    number       INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    organisation TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('rating', 'value')),
    value        INTEGER NOT NULL,
    weight       REAL    NOT NULL,
    comment      TEXT,
    metadata     TEXT,    -- a JSON object
    request_id   TEXT,
    trace_id     TEXT,
    session_id   TEXT,
    source       TEXT    NOT NULL,
    effective    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX feedback_by_request ON feedback (organisation, request_id);
CREATE INDEX feedback_by_trace ON feedback (organisation, trace_id);
CREATE INDEX feedback_by_session ON feedback (organisation, session_id);

CREATE VIEW call_arrivals AS
SELECT c.*, b.*, NULL AS properties FROM calls AS c JOIN bodies AS b ON b.call_id = c.id;

CREATE TRIGGER call_arrives INSTEAD OF INSERT ON call_arrivals
BEGIN
    INSERT INTO calls (
        organisation, request_id, attempt,
        trace_id, span_id, parent_span_id, span_name, session_id, session_name, session_path, user_id,
        prompt_id, prompt_version, method, path, target_url, provider, started_at, latency, time_to_first_token,
        status, is_stream, model_override, request_model, response_model, provider_response_id, finish_reason,
        error_kind, error_message, cost, prompt_tokens, completion_tokens, total_tokens, cache_read_tokens,
        cache_write_tokens, prompt_audio_tokens, completion_audio_tokens, reasoning_tokens
    ) VALUES (
        NEW.organisation, NEW.request_id,
        1 + coalesce((SELECT max(attempt) FROM calls
                      WHERE organisation = NEW.organisation AND request_id = NEW.request_id), 0),
        NEW.trace_id, NEW.span_id, NEW.parent_span_id, NEW.span_name, NEW.session_id, NEW.session_name,
        NEW.session_path, NEW.user_id, NEW.prompt_id, NEW.prompt_version, NEW.method, NEW.path, NEW.target_url,
        NEW.provider, NEW.started_at, NEW.latency, NEW.time_to_first_token, NEW.status, NEW.is_stream,
        NEW.model_override, NEW.request_model, NEW.response_model, NEW.provider_response_id, NEW.finish_reason,
        NEW.error_kind, NEW.error_message, NEW.cost, NEW.prompt_tokens, NEW.completion_tokens, NEW.total_tokens,
        NEW.cache_read_tokens, NEW.cache_write_tokens, NEW.prompt_audio_tokens, NEW.completion_audio_tokens,
        NEW.reasoning_tokens
    );
    INSERT INTO bodies VALUES (
        last_insert_rowid(), NEW.request, NEW.request_packing, NEW.request_size, NEW.request_truncated,
        NEW.request_omitted, NEW.request_content_type, NEW.request_content_encoding, NEW.response,
        NEW.response_packing, NEW.response_size, NEW.response_truncated, NEW.response_omitted,
        NEW.response_content_type, NEW.response_content_encoding
    );
    -- bodies.call_id is a rowid too, so last_insert_rowid() still is the call's. What was set afterwards
    -- is there already (calls_join_properties ran with the first INSERT) and stands.
    INSERT OR IGNORE INTO properties
    SELECT last_insert_rowid(), key, json_extract(value, '$[0]'), json_extract(value, '$[1]')
    FROM json_each(NEW.properties); -- {key: [name, value]}
END;

CREATE TRIGGER calls_join_properties AFTER INSERT ON calls
BEGIN
    INSERT OR REPLACE INTO properties
    SELECT NEW.id, key, name, value FROM request_properties
    WHERE organisation = NEW.organisation AND request_id = NEW.request_id;
END;

-- Values sent before their call, under its request id or response id, where no trace has that text.
CREATE TRIGGER calls_join_values AFTER INSERT ON calls
BEGIN
    UPDATE feedback SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND trace_id IN (NEW.request_id, NEW.provider_response_id)
      AND request_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM calls AS c
                      WHERE c.organisation = NEW.organisation AND c.trace_id = feedback.trace_id);
END;

-- What was kept for a response id before its call was known turns out to be the request's. Of ratings the newest
-- is the effective one, whichever of the two ids they named; of scores and properties the later one stands.
CREATE TRIGGER calls_join_kept AFTER INSERT ON calls
WHEN NEW.provider_response_id IS NOT NULL AND NEW.provider_response_id <> NEW.request_id
 AND (
    EXISTS (SELECT 1 FROM feedback WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id)
    OR EXISTS (SELECT 1 FROM scores WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id)
    OR EXISTS (SELECT 1 FROM request_properties
               WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id)
 )
 AND NOT EXISTS (SELECT 1 FROM calls WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id)
BEGIN
    UPDATE feedback SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id;
    UPDATE feedback SET effective = (number = (
        SELECT max(number) FROM feedback
        WHERE organisation = NEW.organisation AND kind = 'rating' AND request_id = NEW.request_id))
    WHERE organisation = NEW.organisation AND kind = 'rating' AND request_id = NEW.request_id;
    DELETE FROM scores
    WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id
      AND EXISTS (SELECT 1 FROM scores AS s WHERE s.organisation = NEW.organisation
                  AND s.request_id = NEW.request_id AND s.name = scores.name AND s.updated_at > scores.updated_at);
    DELETE FROM request_properties
    WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id
      AND EXISTS (SELECT 1 FROM request_properties AS p WHERE p.organisation = NEW.organisation
                  AND p.request_id = NEW.request_id AND p.key = request_properties.key
                  AND p.updated_at > request_properties.updated_at);
    UPDATE OR REPLACE scores SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id;
    UPDATE OR REPLACE request_properties SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND request_id = NEW.provider_response_id;
    INSERT OR REPLACE INTO properties
    SELECT NEW.id, key, name, value FROM request_properties
    WHERE organisation = NEW.organisation AND request_id = NEW.request_id;
END;

-- A call that turns out to be its session's earliest takes the session's verdict over from the one that was.
CREATE TRIGGER calls_join_session AFTER INSERT ON calls
WHEN NEW.session_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM feedback WHERE organisation = NEW.organisation AND session_id = NEW.session_id
)
BEGIN
    DELETE FROM properties
    WHERE key = 'helicone-session-feedback'
      AND call_id = (SELECT id FROM calls WHERE organisation = NEW.organisation AND session_id = NEW.session_id
                     ORDER BY started_at, id LIMIT 1 OFFSET 1)
      AND NEW.id = (SELECT id FROM calls WHERE organisation = NEW.organisation AND session_id = NEW.session_id
                    ORDER BY started_at, id LIMIT 1);
    INSERT OR REPLACE INTO properties
    SELECT NEW.id, 'helicone-session-feedback', 'Helicone-Session-Feedback', CAST(value AS TEXT) FROM feedback
    WHERE organisation = NEW.organisation AND session_id = NEW.session_id AND effective = 1
      AND NEW.id = (SELECT id FROM calls WHERE organisation = NEW.organisation AND session_id = NEW.session_id
                    ORDER BY started_at, id LIMIT 1);
END;
