//! The gate against tables, properties, and hyper.
