//! What two Millgate processes must agree on: names, limits, refusals, messages. No I/O, no clock, no threads.
//!
//! # Glossary (one word per idea, everywhere)
//!
//! | word | meaning |
//! | --- | --- |
//! | model | a name and an access key under which one function is called |
//! | build | an immutable snapshot: source, environment, the function's place in it |
//! | deployment | a build that runs, with replicas, resources and variables of its own |
//! | supervisor | the trusted process that owns one deployment's processes |
//! | slot | a numbered place for one replica: a listening socket that outlives each replica in it |
//! | template | the untrusted process that imported the function and from which replicas are forked |
//! | replica | a process that runs one call at a time |
//! | call | one request for one run of the function |
//! | lease | the right to run one call on one replica |
//! | refusal | an answer other than success, with a code of the error table |
//! | route snapshot | all a gateway needs to know, as one value with a generation |
//!
//! # Who says what to whom
//!
//! | channel | form | module |
//! | --- | --- | --- |
//! | caller → gateway | HTTP, JSON envelope | [`envelope`], [`refusal`] |
//! | gateway ↔ replica, one Unix stream per slot | binary frames | [`frame`] |
//! | gateway ↔ control API | JSON lines, records | [`publication`], [`route`], [`tracked`], [`prediction_id`] |
//! | gateway, control API ↔ supervisor | JSON lines | [`supervision`] |
//! | launcher → supervisor | one JSON file | [`spec`] |
//! | supervisor ↔ template, replica | JSON datagrams, descriptors beside them | [`nursery`] |
//! | replica → supervisor | a page of memory; marks in what is printed | [`page`], [`mark`] |
#![forbid(unsafe_code)]

pub mod envelope;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod line;
pub mod mark;
pub mod nursery;
pub mod page;
pub mod prediction_id;
pub mod publication;
pub mod rate;
pub mod refusal;
pub mod route;
pub mod spec;
pub mod supervision;
pub mod tracked;
