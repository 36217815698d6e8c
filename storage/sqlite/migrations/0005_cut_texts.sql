-- A row says which of its texts were too long and were cut, by the names of their columns with commas between them;
-- "properties" stands for those.

ALTER TABLE calls ADD COLUMN cut TEXT;

DROP TRIGGER call_arrives;

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
        cache_write_tokens, prompt_audio_tokens, completion_audio_tokens, reasoning_tokens, cut
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
        NEW.reasoning_tokens, NEW.cut
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
