-- A row costs less to write: what no row needs is not done for each.
--
-- Most calls are a trace of their own, found by their request id. Only the others stand in an index of traces, and
-- the view call_traces finds both: asked for a trace_id, it searches that index and calls_by_request.

DROP INDEX calls_by_trace;
CREATE INDEX calls_by_trace ON calls (organisation, trace_id) WHERE trace_id <> request_id;

CREATE VIEW call_traces AS
SELECT organisation, trace_id, request_id, id FROM calls WHERE trace_id <> request_id
UNION ALL
SELECT organisation, request_id, request_id, id FROM calls WHERE trace_id = request_id;

-- Every id under which something was said that a call may have to be joined with when it lands. Of most calls nothing
-- was said before they land, and one look at this table tells so. An id may stay here for nothing.
CREATE TABLE named_ids (
    organisation TEXT NOT NULL,
    id           TEXT NOT NULL,
    PRIMARY KEY (organisation, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER feedback_names_ids AFTER INSERT ON feedback
BEGIN
    INSERT OR IGNORE INTO named_ids SELECT NEW.organisation, NEW.request_id WHERE NEW.request_id IS NOT NULL;
    INSERT OR IGNORE INTO named_ids SELECT NEW.organisation, NEW.trace_id WHERE NEW.trace_id IS NOT NULL;
    INSERT OR IGNORE INTO named_ids SELECT NEW.organisation, NEW.session_id WHERE NEW.session_id IS NOT NULL;
END;

CREATE TRIGGER scores_name_ids AFTER INSERT ON scores
BEGIN
    INSERT OR IGNORE INTO named_ids VALUES (NEW.organisation, NEW.request_id);
END;

CREATE TRIGGER request_properties_name_ids AFTER INSERT ON request_properties
BEGIN
    INSERT OR IGNORE INTO named_ids VALUES (NEW.organisation, NEW.request_id);
END;

-- Moved from a response id to the request id (call_ids_join_kept): later attempts of it take the property too.
CREATE TRIGGER request_properties_name_other_ids AFTER UPDATE OF request_id ON request_properties
BEGIN
    INSERT OR IGNORE INTO named_ids VALUES (NEW.organisation, NEW.request_id);
END;

INSERT OR IGNORE INTO named_ids SELECT organisation, request_id FROM feedback WHERE request_id IS NOT NULL;
INSERT OR IGNORE INTO named_ids SELECT organisation, trace_id FROM feedback WHERE trace_id IS NOT NULL;
INSERT OR IGNORE INTO named_ids SELECT organisation, session_id FROM feedback WHERE session_id IS NOT NULL;
INSERT OR IGNORE INTO named_ids SELECT organisation, request_id FROM scores;
INSERT OR IGNORE INTO named_ids SELECT organisation, request_id FROM request_properties;

-- A trigger on calls costs each row a microsecond, whether its WHEN is true or not: so there is one, which puts a call
-- that may have something to join into the view call_landings, whose triggers join it.

DROP TRIGGER calls_land;
DROP TRIGGER calls_join_properties;
DROP TRIGGER calls_join_session;
DROP TRIGGER call_ids_join_values;
DROP TRIGGER call_arrives;

CREATE VIEW call_landings AS SELECT id, organisation, request_id, provider_response_id, session_id FROM calls;

CREATE TRIGGER calls_land AFTER INSERT ON calls
WHEN EXISTS (SELECT 1 FROM named_ids WHERE organisation = NEW.organisation AND id = NEW.request_id)
  OR EXISTS (SELECT 1 FROM named_ids WHERE organisation = NEW.organisation AND id = NEW.provider_response_id)
  OR EXISTS (SELECT 1 FROM named_ids WHERE organisation = NEW.organisation AND id = NEW.session_id)
BEGIN
    INSERT INTO call_landings VALUES (
        NEW.id, NEW.organisation, NEW.request_id, NEW.provider_response_id, NEW.session_id
    );
END;

CREATE TRIGGER call_landings_join_ids INSTEAD OF INSERT ON call_landings
BEGIN
    INSERT OR REPLACE INTO properties
    SELECT NEW.id, key, name, value FROM request_properties
    WHERE organisation = NEW.organisation AND request_id = NEW.request_id;
    INSERT INTO call_ids VALUES (NEW.id, NEW.organisation, NEW.request_id, NEW.provider_response_id);
END;

-- A call that turns out to be its session's earliest takes the session's verdict over from the one that was.
CREATE TRIGGER call_landings_join_session INSTEAD OF INSERT ON call_landings
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

-- Values sent before their call, under its request id or response id, where no trace has that text.
CREATE TRIGGER call_ids_join_values INSTEAD OF INSERT ON call_ids
BEGIN
    UPDATE feedback SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND trace_id IN (NEW.request_id, NEW.provider_response_id)
      AND request_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM call_traces AS c
                      WHERE c.organisation = NEW.organisation AND c.trace_id = feedback.trace_id);
END;

-- A call's own properties, {key: [name, value]} as JSON text. What was set afterwards has joined already, and stands.
CREATE VIEW call_properties AS SELECT id, NULL AS properties FROM calls;

CREATE TRIGGER call_properties_arrive INSTEAD OF INSERT ON call_properties
BEGIN
    INSERT OR IGNORE INTO properties
    SELECT NEW.id, key, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(NEW.properties);
END;

-- Columns that are left out of the INSERT are NULL here: a parameter less to bind. Of packings an empty text is none:
-- the sqlite3 module binds it in a fraction of the time that None takes.
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
        NEW.provider, NEW.started_at, NEW.latency, NEW.time_to_first_token, NEW.status, coalesce(NEW.is_stream, 0),
        NEW.model_override, NEW.request_model, NEW.response_model, NEW.provider_response_id, NEW.finish_reason,
        NEW.error_kind, NEW.error_message, NEW.cost, NEW.prompt_tokens, NEW.completion_tokens, NEW.total_tokens,
        NEW.cache_read_tokens, NEW.cache_write_tokens, NEW.prompt_audio_tokens, NEW.completion_audio_tokens,
        NEW.reasoning_tokens
    );
    INSERT INTO bodies VALUES (
        last_insert_rowid(), NEW.request, nullif(NEW.request_packing, ''), NEW.request_size,
        coalesce(NEW.request_truncated, 0), coalesce(NEW.request_omitted, 0), NEW.request_content_type,
        NEW.request_content_encoding, NEW.response, nullif(NEW.response_packing, ''), NEW.response_size,
        coalesce(NEW.response_truncated, 0), coalesce(NEW.response_omitted, 0), NEW.response_content_type,
        NEW.response_content_encoding
    );
    -- bodies.call_id is a rowid too, so last_insert_rowid() still is the call's.
    INSERT INTO call_properties SELECT last_insert_rowid(), NEW.properties WHERE NEW.properties IS NOT NULL;
END;
