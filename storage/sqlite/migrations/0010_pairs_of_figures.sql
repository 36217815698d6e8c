-- Blocks have sums by two dimensions at once, too, of such as have few values. Those that are there have none yet: they
-- are made anew, behind the calls.

ALTER TABLE figure_blocks ADD COLUMN pairs TEXT NOT NULL DEFAULT '[]'; -- those that are kept, as a JSON array

DELETE FROM figure_blocks;
