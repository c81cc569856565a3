-- Tracked metrics. Times are Unix milliseconds here, as callers give and read them. Where rows come from is kept apart
-- from deployments, since rows outlive the build they are about.
INSERT INTO counters (name, value) VALUES ('delayed', 0)
--
CREATE TABLE metric_sources (
    deployment_number BIGINT PRIMARY KEY, deployment_id TEXT NOT NULL UNIQUE,
    build_id TEXT NOT NULL, model_id TEXT NOT NULL, model_number BIGINT NOT NULL)
--
CREATE INDEX metric_sources_by_model ON metric_sources (model_id)
--
CREATE TABLE metric_rows (
    id TEXT PRIMARY KEY, is_aggregate BIGINT NOT NULL,
    model_number BIGINT NOT NULL, deployment_number BIGINT NOT NULL, replica TEXT NOT NULL,
    start_ms BIGINT NOT NULL, end_ms BIGINT NOT NULL, metrics TEXT NOT NULL)
--
CREATE INDEX metric_rows_by_model ON metric_rows (model_number, start_ms, id)
--
CREATE INDEX metric_rows_by_deployment ON metric_rows (deployment_number, start_ms, id)
--
CREATE TABLE delayed_metrics (
    number BIGINT PRIMARY KEY, row_id TEXT NOT NULL, unchecked_author TEXT NOT NULL,
    received_us BIGINT NOT NULL, metrics TEXT NOT NULL)
--
CREATE INDEX delayed_metrics_by_row ON delayed_metrics (row_id, number)
--
CREATE INDEX delayed_metrics_unchecked ON delayed_metrics (unchecked_author, row_id) WHERE unchecked_author <> ''
