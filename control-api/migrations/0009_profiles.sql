-- Amounts by name. A deployment keeps the amounts it was made with, and the name: what becomes of the profile is nothing to it.
CREATE TABLE resource_profiles (
    name TEXT PRIMARY KEY, description TEXT NOT NULL,
    cpu_millicores BIGINT NOT NULL, memory_mb BIGINT NOT NULL, nvidia_gpus BIGINT NOT NULL,
    created_us BIGINT NOT NULL, updated_us BIGINT NOT NULL)
--
ALTER TABLE deployments ADD COLUMN resource_profile TEXT NOT NULL DEFAULT ''
