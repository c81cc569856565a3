//! Calls to a forked replica: answers, errors, what they print, what they track.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::{Project, text};
use millgate_contract::frame::Outcome;

#[test]
fn a_call_is_accepted_and_then_done_with_what_the_function_returned() {
    let template = Project::new("def predict(args):\n    return args['a'] + args['b']\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let done = gateway.call(r#"{"a":3,"b":5}"#);
    assert_eq!((done.outcome, text(&done.value)), (Outcome::Ok, "8".to_owned()));
    assert!(!done.is_leaving && !done.collects_metrics && done.metrics.is_empty());
    assert!(done.timings.memory_peak_kib > 0);
    for n in 0..100 {
        assert_eq!(gateway.answer(&format!(r#"{{"a":{n},"b":1}}"#)), (n + 1).to_string());
    }
}
