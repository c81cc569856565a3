-- What belongs to a build though it is ignored, and what its asker should know of it: JSON lists.
ALTER TABLE builds ADD COLUMN include TEXT NOT NULL DEFAULT '[]'
--
ALTER TABLE builds ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]'
