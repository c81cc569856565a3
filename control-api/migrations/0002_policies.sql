-- How a model's deployments are served where they say nothing, and how one is: JSON, '' is the default throughout.
ALTER TABLE models ADD COLUMN policy TEXT NOT NULL DEFAULT ''
--
ALTER TABLE deployments ADD COLUMN policy TEXT NOT NULL DEFAULT ''
