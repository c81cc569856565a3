-- Who did what to which object, when and from where. Rows are added and read; no statement of this program changes or
-- deletes one.
CREATE TABLE audit (
    number BIGINT PRIMARY KEY, at_us BIGINT NOT NULL, username TEXT NOT NULL, address TEXT NOT NULL,
    operation TEXT NOT NULL, object TEXT NOT NULL, project_id TEXT NOT NULL, status BIGINT NOT NULL,
    message TEXT NOT NULL, details TEXT NOT NULL)
--
CREATE INDEX audit_by_time ON audit (at_us)
--
INSERT INTO counters (name, value) VALUES ('audit', 0)
