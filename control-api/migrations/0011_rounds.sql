-- When a build's content was last read after it was sealed.
ALTER TABLE builds ADD COLUMN read_us BIGINT NOT NULL DEFAULT 0
