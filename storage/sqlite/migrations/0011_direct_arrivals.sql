-- Calls arrive in `calls` and `bodies` themselves, many with one INSERT each (storage/sqlite/arrivals.py): through the
-- view call_arrivals each row was put into a table of the moment, and read from there by a trigger, which took more
-- than a quarter of SQLite's time. Who writes calls now asks of all of them, once they are there, which are to be put
-- into the view call_landings: a trigger that asks of each would bring that table back.

DROP VIEW call_arrivals; -- and with it its trigger
DROP VIEW call_properties;
DROP TRIGGER calls_land;

-- A call that turns out to be its session's earliest takes the session's verdict over from the one that was. Those
-- behind it that are there already, because they were written together, land when their turn has come.
DROP TRIGGER call_landings_join_session;

CREATE TRIGGER call_landings_join_session INSTEAD OF INSERT ON call_landings
WHEN NEW.session_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM feedback WHERE organisation = NEW.organisation AND session_id = NEW.session_id
)
BEGIN
    DELETE FROM properties
    WHERE key = 'helicone-session-feedback'
      AND call_id = (SELECT id FROM calls
                     WHERE organisation = NEW.organisation AND session_id = NEW.session_id AND id <= NEW.id
                     ORDER BY started_at, id LIMIT 1 OFFSET 1)
      AND NEW.id = (SELECT id FROM calls
                    WHERE organisation = NEW.organisation AND session_id = NEW.session_id AND id <= NEW.id
                    ORDER BY started_at, id LIMIT 1);
    INSERT OR REPLACE INTO properties
    SELECT NEW.id, 'helicone-session-feedback', 'Helicone-Session-Feedback', CAST(value AS TEXT) FROM feedback
    WHERE organisation = NEW.organisation AND session_id = NEW.session_id AND effective = 1
      AND NEW.id = (SELECT id FROM calls
                    WHERE organisation = NEW.organisation AND session_id = NEW.session_id AND id <= NEW.id
                    ORDER BY started_at, id LIMIT 1);
END;
