-- A better parser may find the response id of a call long after the call has landed. What was said under that id joins
-- the call then, by the same two triggers as when it lands: both ways put the call's ids into the view call_ids.

DROP TRIGGER calls_join_values;
DROP TRIGGER calls_join_kept;

CREATE VIEW call_ids AS SELECT id, organisation, request_id, provider_response_id FROM calls;

CREATE TRIGGER calls_land AFTER INSERT ON calls
BEGIN
    INSERT INTO call_ids VALUES (NEW.id, NEW.organisation, NEW.request_id, NEW.provider_response_id);
END;

CREATE TRIGGER calls_change_response_id AFTER UPDATE OF provider_response_id ON calls
WHEN NEW.provider_response_id IS NOT OLD.provider_response_id
BEGIN
    INSERT INTO call_ids VALUES (NEW.id, NEW.organisation, NEW.request_id, NEW.provider_response_id);
END;

-- Values sent before their call, under its request id or response id, where no trace has that text.
CREATE TRIGGER call_ids_join_values INSTEAD OF INSERT ON call_ids
BEGIN
    UPDATE feedback SET request_id = NEW.request_id
    WHERE organisation = NEW.organisation AND trace_id IN (NEW.request_id, NEW.provider_response_id)
      AND request_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM calls AS c
                      WHERE c.organisation = NEW.organisation AND c.trace_id = feedback.trace_id);
END;

-- What was kept for a response id before its call was known turns out to be the request's. Of ratings the newest
-- is the effective one, whichever of the two ids they named; of scores and properties the later one stands.
CREATE TRIGGER call_ids_join_kept INSTEAD OF INSERT ON call_ids
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
