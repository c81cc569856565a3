-- People, service accounts and teams are all users: one space of names, so that an owner is a name. A deleted one stays,
-- its name is never another's.
ALTER TABLE users ADD COLUMN kind TEXT NOT NULL DEFAULT 'person'
--
ALTER TABLE users ADD COLUMN password_hash TEXT NOT NULL DEFAULT ''
--
ALTER TABLE users ADD COLUMN is_disabled BIGINT NOT NULL DEFAULT 0
--
ALTER TABLE users ADD COLUMN deleted_us BIGINT NOT NULL DEFAULT 0
--
CREATE TABLE team_members (
    team TEXT NOT NULL REFERENCES users (username), username TEXT NOT NULL REFERENCES users (username),
    permission TEXT NOT NULL, PRIMARY KEY (team, username))
