-- Builds that stay whatever their age, builds whose files are gone, and the one that another was made from again.
-- `collected_us` is written before the first file is removed and `is_freed` after the last: what lies between is gone on with.
ALTER TABLE builds ADD COLUMN is_pinned BIGINT NOT NULL DEFAULT 0
--
ALTER TABLE builds ADD COLUMN collected_us BIGINT NOT NULL DEFAULT 0
--
ALTER TABLE builds ADD COLUMN is_freed BIGINT NOT NULL DEFAULT 0
--
ALTER TABLE builds ADD COLUMN rebuilt_from TEXT NOT NULL DEFAULT ''
--
CREATE INDEX builds_to_free ON builds (number) WHERE collected_us > 0 AND is_freed = 0
