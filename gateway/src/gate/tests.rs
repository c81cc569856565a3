//! The gate against tables, properties, and hyper.

mod budgets;
mod heads;
mod streams;
