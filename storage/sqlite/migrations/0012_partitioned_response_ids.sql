-- A row costs a long log no more than a short one. Request ids of Kibitz's own are in the order of their time, and so
-- stand behind each other in an index. What providers name their responses is random: in an index of a million each
-- row changed a page of its own somewhere, to be read, written to the WAL and moved from there. Now their index is
-- partitioned: calls stand in it by 65,536 of their numbers, and within those by response id, so rows only ever change
-- its end. Who looks for an id looks into each partition, some microseconds each (storage/sqlite/sql.py, `_LATEST`).

DROP INDEX calls_by_response;
CREATE INDEX calls_by_response ON calls (id >> 16, organisation, provider_response_id)
WHERE provider_response_id IS NOT NULL;

-- For those who look for calls by their response ids: each comparison finds them in every partition.
CREATE VIEW call_responses AS
WITH RECURSIVE partitions (number) AS (
    SELECT min(id) >> 16 FROM calls
    UNION ALL
    SELECT number + 1 FROM partitions WHERE number < (SELECT max(id) >> 16 FROM calls)
)
SELECT c.id, c.organisation, c.provider_response_id
FROM partitions CROSS JOIN calls AS c INDEXED BY calls_by_response
ON c.id >> 16 = partitions.number AND c.provider_response_id IS NOT NULL;
