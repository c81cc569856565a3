//! JSON in and out beside `json` and `orjson`, in one process, on one core, in turns: median of many runs.
//!
//! `cargo run --release -p millgate-replica-runtime --example json_side_by_side`, with `PYTHONPATH` naming a folder that
//! holds `orjson`; without it that column is empty. A figure is the time of one call, objects made and freed included.
//!
//! `… json_side_by_side WAY RUNS`, with WAY one of `in`, `out`, `orjson.loads`, `orjson.dumps`, only does that to the
//! records so many times, to be counted: the instructions of one run are the difference of two counts, by
//! `valgrind --tool=callgrind`, over the difference of their runs.

use std::time::{Duration, Instant};

use millgate_contract::limits;
use millgate_replica_runtime::json::{self, Codec};
use pyo3::{prelude::*, types::PyBytes};

const PAYLOADS: &std::ffi::CStr = c"
import random
draw = random.Random(1)
payloads = {
    '5 MB of floats': [draw.random() for _ in range(262_000)],
    '158 KB of records': [
        {'id': k, 'name': f'customer {k}', 'is_active': k % 3 == 0, 'score': draw.random(), 'tags': ['a', 'b'],
         'city': 'Z\\u00fcrich', 'parent': None}
        for k in range(1_270)
    ],
    '30 bytes': {'a': 3, 'b': 5, 'name': 'someone'},
}
";
/// At least this long is measured of each.
const TIME: Duration = Duration::from_millis(600);
const RUNS_MIN: usize = 15;

fn main() -> PyResult<()> {
    Python::initialize();
    Python::attach(|py| {
        let module = PyModule::from_code(py, PAYLOADS, c"payloads", c"payloads")?;
        let codec = Codec::new(py)?;
        let stdlib = py.import("json")?;
        let orjson = py.import("orjson").ok();
        if let [_, way, runs] = &std::env::args().collect::<Vec<_>>()[..] {
            let records = module.getattr("payloads")?.get_item("158 KB of records")?;
            return repeat(py, &codec, &records, (way, runs.parse()?));
        }
        println!(
            "{:<20} {:>10} {:>10} {:>10}   {:>10} {:>10}",
            "", "millgate", "json", "orjson", "÷ json", "÷ orjson"
        );
        for (name, value) in module.getattr("payloads")?.cast_into::<pyo3::types::PyDict>()?.iter() {
            let mut text = Vec::new();
            encode(&codec, &value, &mut text);
            let bytes = PyBytes::new(py, &text);
            let title = format!("{name} ({} bytes)", text.len());
            println!("{title}");
            let mut ways: Vec<Way<'_>> = vec![
                Box::new(|| drop(json::decode(py, &text).expect("it is JSON"))),
                Box::new(call(stdlib.getattr("loads")?, bytes.clone().into_any())),
            ];
            if let Some(orjson) = &orjson {
                ways.push(Box::new(call(orjson.getattr("loads")?, bytes.into_any())));
            }
            show("in", &mut ways);
            let mut out = Vec::new();
            let dumps = stdlib.getattr("dumps")?;
            let of_json = value.clone();
            let mut ways: Vec<Way<'_>> = vec![
                Box::new(|| encode(&codec, &value, &mut out)),
                // What is sent is bytes.
                Box::new(move || {
                    let text = dumps.call1((&of_json,)).expect("it is JSON");
                    drop(text.call_method0("encode").expect("it is text"));
                }),
            ];
            if let Some(orjson) = &orjson {
                ways.push(Box::new(call(orjson.getattr("dumps")?, value.clone())));
            }
            show("out", &mut ways);
        }
        Ok(())
    })
}

fn repeat(py: Python<'_>, codec: &Codec, value: &Bound<'_, PyAny>, (way, runs): (&str, u32)) -> PyResult<()> {
    let mut text = Vec::new();
    encode(codec, value, &mut text);
    let bytes = PyBytes::new(py, &text).into_any();
    let mut out = Vec::new();
    for _ in 0..runs {
        match way.split_once('.') {
            None if way == "in" => drop(json::decode(py, &text).expect("it is JSON")),
            None => encode(codec, value, &mut out),
            Some((module, "loads")) => drop(py.import(module)?.call_method1("loads", (&bytes,))?),
            Some((module, name)) => drop(py.import(module)?.call_method1(name, (value,))?),
        }
    }
    Ok(())
}

type Way<'a> = Box<dyn FnMut() + 'a>;

fn encode(codec: &Codec, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) {
    out.clear();
    assert!(codec.encode(value, out, limits::RESPONSE_BYTES_MAX).is_ok(), "it is JSON");
}

fn call<'py>(function: Bound<'py, PyAny>, argument: Bound<'py, PyAny>) -> impl FnMut() + 'py {
    move || drop(function.call1((&argument,)).expect("it is JSON"))
}

/// In turns, so that what else the machine does hits all alike.
fn show(direction: &str, ways: &mut [Way<'_>]) {
    let mut times = vec![Vec::new(); ways.len()];
    let begun = Instant::now();
    while begun.elapsed() < TIME || times[0].len() < RUNS_MIN {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            let start = Instant::now();
            way();
            times.push(start.elapsed());
        }
    }
    let median: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64()
        })
        .collect();
    let cell = |k: usize| median.get(k).map_or_else(|| "–".to_owned(), |s| in_words(*s));
    let ratio = |k: usize| median.get(k).map_or_else(|| "–".to_owned(), |s| format!("{:.2}", median[0] / s));
    println!(
        "  {direction:<18} {:>10} {:>10} {:>10}   {:>10} {:>10}",
        cell(0),
        cell(1),
        cell(2),
        ratio(1),
        ratio(2)
    );
}

fn in_words(seconds: f64) -> String {
    if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else if seconds >= 1e-5 {
        format!("{:.1} µs", seconds * 1e6)
    } else {
        format!("{:.0} ns", seconds * 1e9)
    }
}
