//! Calls to a forked replica: answers, errors, what they print, what they track.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::{Project, text, until};
use millgate_contract::{frame::Outcome, limits, nursery::FromTemplate};

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

#[test]
fn a_replica_that_may_look_for_its_next_call_awake_sleeps_when_none_comes() {
    let template = Project::new("def predict(args):\n    return args\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    gateway.busy_poll_us = u16::MAX;
    for _ in 0..2 {
        for n in 0..20 {
            assert_eq!(gateway.answer(&n.to_string()), n.to_string());
        }
        until("the replica sleeps", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", replica.pid)).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('S')
        });
    }
    replica.terminate();
    assert_eq!(replica.expect_leaving(), "asked to leave");
}

#[test]
fn an_exception_is_answered_logged_and_ends_the_replica_while_its_sibling_serves() {
    let template = Project::new("def predict(args):\n    raise ValueError('no ' + args)\n").import();
    let (replica, sibling) = (template.ready(), template.ready());
    let mut gateway = replica.gateway();
    let done = gateway.call(r#""way""#);
    assert_eq!((done.outcome, text(&done.value)), (Outcome::Exception, "ValueError: no way".to_owned()));
    assert!(done.is_leaving);
    assert_eq!(replica.expect_leaving(), "the function raised");
    replica.expect_end();
    let log = replica.log.whole();
    assert!(log.contains("predict.py\", line 2, in predict") && !log.contains("<millgate>"), "{log}");
    let FromTemplate::Exited { pid, status } = template.next() else { panic!("not reaped") };
    assert_eq!((pid, status.as_str()), (replica.pid, "exit status 0"));
    assert_eq!(sibling.gateway().call("\"x\"").outcome, Outcome::Exception);
}

#[test]
fn the_text_of_an_exception_is_bounded_and_cut_at_a_character() {
    let template = Project::new("def predict(args):\n    raise ValueError('é' * 5_000_000)\n").import();
    let done = template.ready().gateway().call("1");
    assert!(done.value.len() <= limits::EXCEPTION_TEXT_BYTES_MAX && done.value.len() > 2_000);
    assert!(text(&done.value).ends_with('é'));
}

#[test]
fn an_exception_whose_text_raises_is_still_an_answer() {
    let code = "class Odd(Exception):\n    def __str__(self):\n        raise RuntimeError\ndef predict(args):\n    raise Odd\n";
    let template = Project::new(code).import();
    let done = template.ready().gateway().call("1");
    assert_eq!(text(&done.value), "Odd: (its text cannot be had)");
}

#[test]
fn sys_exit_in_a_function_is_an_exception() {
    let template = Project::new("import sys\ndef predict(args):\n    sys.exit(3)\n").import();
    let done = template.ready().gateway().call("1");
    assert_eq!((done.outcome, text(&done.value)), (Outcome::Exception, "SystemExit: 3".to_owned()));
    assert!(done.is_leaving);
}

#[test]
fn what_json_cannot_hold_is_named_with_its_place_and_the_replica_goes_on() {
    let template = Project::new("def predict(args):\n    return {'scores': [1.0, eval(args)]}\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let done = gateway.call(r#""float('nan')""#);
    assert_eq!(done.outcome, Outcome::BadOutput);
    assert_eq!(
        text(&done.value),
        "the function returned `NaN` at `response.scores[1]`, which JSON cannot hold"
    );
    assert!(!done.is_leaving);
    replica.log.wait_for("`NaN` at `response.scores[1]`");
    assert_eq!(gateway.answer("\"2\""), r#"{"scores":[1.0,2]}"#);
}

#[test]
fn an_answer_over_the_limit_is_refused_and_one_just_under_it_is_given() {
    let template = Project::new("def predict(n):\n    return 'x' * n\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let max = limits::RESPONSE_BYTES_MAX;
    assert_eq!(gateway.call(&(max - 1).to_string()).outcome, Outcome::BadOutput);
    assert_eq!(gateway.call(&(max - 2).to_string()).value.len(), max);
}

#[test]
fn a_number_that_python_cannot_hold_is_bad_input_and_nothing_is_run() {
    let template = Project::new("def predict(args):\n    print('ran')\n    return args\n").import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    for number in ["1e999".to_owned(), format!("[-{}.5]", "9".repeat(400)), "9".repeat(5_000)] {
        let done = gateway.call(&number);
        assert_eq!(done.outcome, Outcome::BadInput, "{}", text(&done.value));
        assert!(!done.is_leaving);
    }
    assert_eq!(gateway.answer("1e308"), "1e+308");
    assert_eq!(gateway.answer(&"9".repeat(4_000)), "9".repeat(4_000));
    replica.log.wait_for("ran\nran\n");
    assert_eq!(replica.log.text().matches("ran").count(), 2);
}

#[test]
fn prints_reach_the_log_before_the_answer_without_a_flush() {
    let code = "import os, sys\ndef predict(args):\n    print('out', args)\n    print('err', args, file=sys.stderr)\n    os.write(1, b'raw\\n')\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    assert_eq!(replica.gateway().answer("7"), "null");
    replica.log.wait_for("out 7\nerr 7\nraw\n");
}

#[test]
fn what_was_printed_at_import_is_not_printed_again_by_each_replica() {
    let template = Project::new("print('once', end='')\ndef predict(args):\n    return 1\n").import();
    let replica = template.ready();
    replica.gateway().answer("1");
    replica.terminate();
    replica.expect_leaving();
    replica.expect_end();
    template.log.wait_for("once");
    assert_eq!(replica.log.whole(), "");
}

#[test]
fn a_function_that_closes_every_descriptor_ends_its_process() {
    let code = "import os\ndef predict(args):\n    os.closerange(3, 4096)\n    return 1\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let id = gateway.begin("0");
    gateway.expect_accepted(id);
    assert_eq!(gateway.receive(), None);
    replica.expect_end();
}

#[test]
fn writing_to_low_descriptors_does_not_reach_a_gateway() {
    let code = "import os\ndef predict(args):\n    hit = 0\n    for fd in range(3, 256):\n        try:\n            os.write(fd, b'junk' * 100)\n            hit += 1\n        except OSError:\n            pass\n    return hit\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    assert_eq!(gateway.answer("1"), "0");
    assert_eq!(gateway.answer("1"), "0");
}

#[test]
fn a_large_request_and_a_large_answer_come_whole() {
    let template = Project::new("def predict(args):\n    return args + args\n").import();
    let list = format!("[{}0.5]", "1.25,".repeat(1_000_000));
    let answer = template.ready().gateway().answer(&list);
    assert_eq!(answer, format!("[{}0.5,{}0.5]", "1.25,".repeat(1_000_000), "1.25,".repeat(1_000_000)));
}

const TRACKING: &str = r"
from cml.models_v1 import cml_model
from cml.metrics_v1 import track_metric

@cml_model(metrics=True)
def predict(args):
    track_metric('input', args)
    track_metric('bad', float('nan'))
    track_metric('large', 'x' * 70_000)
    track_metric('last', [1, None])
    return args * 2
";

#[test]
fn tracked_metrics_ride_back_and_those_that_cannot_are_named_in_the_log() {
    let template = Project::new(TRACKING).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    for n in 1..3 {
        let done = gateway.call(&n.to_string());
        assert!(done.collects_metrics);
        assert_eq!(text(&done.value), (n * 2).to_string());
        assert_eq!(text(&done.metrics), format!(r#"{{"input":{n},"last":[1,null]}}"#));
    }
    replica.log.wait_for("the metric `bad` was not recorded");
    replica.log.wait_for("the metric `large` was not recorded");
}

#[test]
fn too_many_metrics_are_an_exception_that_says_so_in_the_log() {
    let code = "
from cdsw import model_metrics, track_metrics
@model_metrics
def predict(args):
    track_metrics({str(n): n for n in range(args)})
    return args
";
    let template = Project::new(code).import();
    let done = template.ready().gateway().call("1000");
    assert_eq!((done.outcome, text(&done.value).as_str()), (Outcome::Ok, "1000"));
    assert!(text(&done.metrics).ends_with(r#""999":999}"#));
    let replica = template.ready();
    let done = replica.gateway().call("1001");
    assert_eq!(done.outcome, Outcome::Exception);
    assert!(text(&done.value).starts_with("ValueError: more than 1000 metrics; `1000` is one too many"));
    replica.log.wait_for("in predict");
    replica.log.wait_for("ValueError: more than 1000 metrics; `1000` is one too many");
}

#[test]
fn every_decoration_of_the_sdk_runs_and_says_whether_it_collects() {
    for (decorator, collects) in [
        ("@cml_model", false),
        ("@cml_model()", false),
        ("@cml_model(metrics=True)", true),
        ("@model_metrics", true),
    ] {
        let code = format!(
            "from cdsw import *\nfrom cml.models_v1 import *\n{decorator}\ndef predict(args):\n    return args\n"
        );
        let done = Project::new(&code).import().ready().gateway().call("3");
        assert_eq!((text(&done.value).as_str(), done.collects_metrics), ("3", collects), "{decorator}");
    }
}

#[test]
fn a_decorator_on_top_of_the_sdks_is_called_first() {
    let code = "import functools\nfrom cml.models_v1 import cml_model\ndef twice(f):\n    @functools.wraps(f)\n    def outer(args):\n        return f(args) * 2\n    return outer\n@twice\n@cml_model(metrics=True)\ndef predict(args):\n    return args\n";
    let done = Project::new(code).import().ready().gateway().call("3");
    assert_eq!((text(&done.value).as_str(), done.collects_metrics), ("6", true));
}

#[test]
fn a_coroutine_function_keeps_its_loop_and_its_tasks_go_on_between_calls() {
    let code = r"
import asyncio
tasks, ticks = [], 0

async def tick():
    global ticks
    for _ in range(20):
        await asyncio.sleep(0)
        ticks += 1
    print('ticked', ticks)

async def predict(args):
    tasks.append(asyncio.ensure_future(tick()))
    return [len(tasks), id(asyncio.get_running_loop())]
";
    let template = Project::new(code).import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    let first = gateway.answer("0");
    // No call runs: only the idle replica can take the task to its end.
    replica.log.wait_for("ticked 20");
    let second = gateway.answer("0");
    assert_eq!(first.split(',').nth(1), second.split(',').nth(1), "one loop");
    replica.log.wait_for("ticked 40");
    replica.terminate();
    replica.expect_leaving();
}

#[test]
fn siblings_draw_different_random_numbers() {
    let template =
        Project::new("import random\nrandom.seed(7)\ndef predict(args):\n    return random.random()\n")
            .import();
    let draw = || template.ready().gateway().answer("1");
    assert_ne!(draw(), draw());
}

#[test]
fn a_function_can_ask_which_call_runs_wherever_it_imports_the_sdk() {
    let template = Project::new(
        "
import threading, time

def wait_for_the_end():
    import millgate
    while millgate.current_call() is not None:
        time.sleep(0.001)
    open('over', 'w').close()

def predict(args):
    import millgate
    if args is not None:
        threading.Thread(target=wait_for_the_end).start()
    return millgate.current_call()
",
    )
    .import();
    let replica = template.ready();
    let mut gateway = replica.gateway();
    for (request_id, traceparent, expected) in [
        (
            "one",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            r#"["one","00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]"#,
        ),
        ("two", "", r#"["two",null]"#),
    ] {
        let id = gateway.begin_traced(request_id, traceparent);
        gateway.expect_accepted(id);
        assert_eq!(text(&gateway.expect_done(id).value), expected);
    }
    gateway.answer("1");
    let over = template.project.folder.path().join("over");
    until("a thread sees that no call runs", || over.exists());
}
