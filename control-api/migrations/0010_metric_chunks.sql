-- Predictions whose UUIDs say when they began, many in one row: those of one deployment and one second, as lines
-- (`store/metrics/chunk.rs`). Rows kept one by one before stay where they are, aggregates as well.
CREATE TABLE metric_chunks (
    deployment_number BIGINT NOT NULL, start_ms_min BIGINT NOT NULL, first_id TEXT NOT NULL,
    start_ms_max BIGINT NOT NULL, model_number BIGINT NOT NULL, row_count BIGINT NOT NULL,
    replicas TEXT NOT NULL, records TEXT NOT NULL, PRIMARY KEY (deployment_number, start_ms_min, first_id))
--
CREATE INDEX metric_chunks_by_model ON metric_chunks (model_number, start_ms_min, first_id)
--
CREATE INDEX metric_chunks_by_start ON metric_chunks (start_ms_min)
