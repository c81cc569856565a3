-- Desired state, first edition. Runs on SQLite and PostgreSQL alike: TEXT and BIGINT only, times are Unix microseconds
-- (0 is "not yet"), absent text is ''. Statements are separated by a line holding only two hyphens.
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)
--
CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)
--
INSERT INTO counters (name, value) VALUES
    ('project', 0), ('model', 0), ('build', 0), ('deployment', 0), ('sequence', 0), ('generation', 0)
--
CREATE TABLE users (
    username TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
    role TEXT NOT NULL, created_us BIGINT NOT NULL)
--
CREATE TABLE projects (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, name TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES users (username), creator TEXT NOT NULL, description TEXT NOT NULL,
    visibility TEXT NOT NULL, default_engine_type TEXT NOT NULL, environment TEXT NOT NULL,
    shared_memory_limit BIGINT NOT NULL, is_deleting BIGINT NOT NULL,
    created_us BIGINT NOT NULL, updated_us BIGINT NOT NULL)
--
CREATE UNIQUE INDEX projects_by_name ON projects (owner, name) WHERE is_deleting = 0
--
CREATE TABLE collaborators (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    username TEXT NOT NULL REFERENCES users (username), permission TEXT NOT NULL,
    PRIMARY KEY (project_id, username))
--
CREATE TABLE models (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE,
    project_id TEXT NOT NULL REFERENCES projects (id), name TEXT NOT NULL, description TEXT NOT NULL,
    creator TEXT NOT NULL, visibility TEXT NOT NULL, auth_enabled BIGINT NOT NULL, run_as TEXT NOT NULL,
    registered_model_id TEXT NOT NULL, accelerator_label_id BIGINT NOT NULL,
    access_key_digest TEXT NOT NULL UNIQUE, access_key_sealed TEXT NOT NULL,
    cpu_millicores BIGINT NOT NULL, memory_mb BIGINT NOT NULL, nvidia_gpus BIGINT NOT NULL, replicas BIGINT NOT NULL,
    routed TEXT NOT NULL, is_deleting BIGINT NOT NULL,
    created_us BIGINT NOT NULL, updated_us BIGINT NOT NULL)
--
CREATE UNIQUE INDEX models_by_name ON models (project_id, name) WHERE is_deleting = 0
--
CREATE TABLE builds (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, build_number BIGINT NOT NULL,
    model_id TEXT NOT NULL REFERENCES models (id), creator TEXT NOT NULL, comment TEXT NOT NULL,
    file_path TEXT NOT NULL, function_name TEXT NOT NULL, kernel TEXT NOT NULL,
    runtime_identifier TEXT NOT NULL, runtime_addon_identifiers TEXT NOT NULL,
    model_root_dir TEXT NOT NULL, build_script_path TEXT NOT NULL,
    example_request TEXT NOT NULL, example_response TEXT NOT NULL,
    status TEXT NOT NULL, reason TEXT NOT NULL, source_hash TEXT NOT NULL, build_hash TEXT NOT NULL,
    is_deleting BIGINT NOT NULL,
    created_us BIGINT NOT NULL, updated_us BIGINT NOT NULL, built_us BIGINT NOT NULL)
--
CREATE INDEX builds_by_model ON builds (model_id, number)
--
CREATE TABLE deployments (
    id TEXT PRIMARY KEY, number BIGINT NOT NULL UNIQUE, sequence BIGINT NOT NULL,
    build_id TEXT NOT NULL REFERENCES builds (id), model_id TEXT NOT NULL REFERENCES models (id),
    deployer TEXT NOT NULL, cpu_millicores BIGINT NOT NULL, memory_mb BIGINT NOT NULL, nvidia_gpus BIGINT NOT NULL,
    replicas BIGINT NOT NULL, environment TEXT NOT NULL,
    status TEXT NOT NULL, reason TEXT NOT NULL, is_stop_requested BIGINT NOT NULL,
    created_us BIGINT NOT NULL, updated_us BIGINT NOT NULL, stopped_us BIGINT NOT NULL)
--
CREATE INDEX deployments_by_model ON deployments (model_id, number)
--
CREATE INDEX deployments_by_status ON deployments (status)
--
CREATE TABLE api_keys (
    key_id TEXT PRIMARY KEY, username TEXT NOT NULL REFERENCES users (username), comments TEXT NOT NULL,
    audiences TEXT NOT NULL, created_us BIGINT NOT NULL, expires_s BIGINT NOT NULL, deleted_us BIGINT NOT NULL)
--
CREATE INDEX api_keys_by_user ON api_keys (username, created_us)
