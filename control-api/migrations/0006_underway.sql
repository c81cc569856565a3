-- Deeds that have begun and are not recorded yet. What is left here when a server starts was cut off by the end of the one
-- before it, and goes into the record as such.
CREATE TABLE audit_underway (
    number BIGINT PRIMARY KEY, at_us BIGINT NOT NULL, username TEXT NOT NULL, address TEXT NOT NULL,
    operation TEXT NOT NULL, object TEXT NOT NULL, project_id TEXT NOT NULL, details TEXT NOT NULL)
--
INSERT INTO counters (name, value) VALUES ('audit_underway', 0)
