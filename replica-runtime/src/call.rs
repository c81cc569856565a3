//! One run of the function: JSON to Python objects, the function, Python objects to JSON, measured.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millgate_contract::{
    frame::{Outcome, Timings},
    limits,
};
use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};
use pyo3::{exceptions::PySystemExit, ffi, prelude::*, types::PyDict};

use crate::{
    desk::Ended,
    json, log,
    program::{EventLoop, Program, cut},
    signals,
};

/// What paths to values in an answer begin with.
const ROOT: &str = "response";

/// The end of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) value: Bytes,
    pub(crate) metrics: Bytes,
    pub(crate) timings: Timings,
    pub(crate) collects_metrics: bool,
    /// The process is not to be used again.
    pub(crate) must_leave: bool,
    /// The supervisor has asked for it to leave.
    pub(crate) is_draining: bool,
}

/// Runs calls, one at a time.
pub(crate) struct Runner<'a> {
    pub(crate) py: Python<'a>,
    program: &'a Program,
    replaces_after_exception: bool,
    event_loop: Option<EventLoop>,
    /// What the process had used at the end of a call that the next one follows at once.
    used: Option<Usage>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(py: Python<'a>, program: &'a Program, replaces_after_exception: bool) -> Self {
        Self { py, program, replaces_after_exception, event_loop: None, used: None }
    }

    /// The loop on which tasks may be waiting, once a coroutine has run.
    pub(crate) fn event_loop(&self) -> Option<&EventLoop> {
        self.event_loop.as_ref()
    }

    /// Nothing runs for a while: what threads of the user's use meanwhile is no call's.
    pub(crate) fn rest(&mut self) {
        self.used = None;
    }

    /// Runs the function on `request`. `ended` is asked once, as soon as the function is over.
    pub(crate) fn run(&mut self, request: &[u8], ended: impl FnOnce() -> Ended) -> Answer {
        let mut clock = Clock::start(self.used.take());
        let request = match json::decode(self.py, request) {
            Ok(request) => request,
            Err(error) => {
                let ended = self.close(ended);
                return self.answer(Outcome::BadInput, error.to_string().into(), clock, ended);
            }
        };
        clock.decoded();
        let (result, store) = self.call(request);
        clock.ran();
        let ended = self.close(ended);
        match result {
            Ok(value) => self.success(&value, store, clock, ended),
            Err(_) if ended.is_cancelled => {
                let mut answer = self.answer(Outcome::Cancelled, Bytes::new(), clock, ended);
                // It was stopped in the middle of whatever it did.
                answer.must_leave = true;
                answer
            }
            Err(error) => {
                self.program.bootstrap.show(self.py, &error);
                let text = self.program.bootstrap.describe(self.py, &error);
                let asked_to_exit = error.is_instance_of::<PySystemExit>(self.py);
                let mut answer = self.answer(Outcome::Exception, text.into(), clock, ended);
                answer.must_leave = asked_to_exit || self.replaces_after_exception;
                answer
            }
        }
    }

    fn call(&mut self, request: Bound<'a, PyAny>) -> (PyResult<Bound<'a, PyAny>>, Option<Bound<'a, PyDict>>) {
        let py = self.py;
        let store = match self.program.tracking.as_ref().map(|tracking| tracking.begin(py)).transpose() {
            Ok(store) => store,
            Err(error) => return (Err(error), None),
        };
        let result = self.program.function.bind(py).call1((request,)).and_then(|result| self.settle(result));
        // Ending cannot fail where beginning did not: the same key of the same dictionary.
        let _ = self.program.tracking.as_ref().map(|tracking| tracking.end(py));
        (result, store)
    }

    /// Runs `setup` or `teardown`, which may be coroutine functions too.
    pub(crate) fn run_hook(&mut self, hook: &Bound<'a, PyAny>) -> PyResult<()> {
        let result = hook.call0()?;
        self.settle(result).map(drop)
    }

    /// What a coroutine comes to; anything else is itself.
    fn settle(&mut self, result: Bound<'a, PyAny>) -> PyResult<Bound<'a, PyAny>> {
        // SAFETY: `result` is a live object; only its type is looked at.
        if unsafe { ffi::PyCoro_CheckExact(result.as_ptr()) } == 0 {
            return Ok(result);
        }
        if self.event_loop.is_none() {
            self.event_loop = Some(self.program.bootstrap.event_loop(self.py)?);
        }
        self.event_loop.as_ref().expect("it was made above").run(&result)
    }

    /// Ends the time in which the call can be interrupted, and eats an interrupt that came too late for it.
    fn close(&self, ended: impl FnOnce() -> Ended) -> Ended {
        let ended = ended();
        if ended.is_cancelled {
            signals::receive_interrupts();
            drop(self.py.check_signals());
        }
        ended
    }

    fn success(
        &mut self,
        value: &Bound<'a, PyAny>,
        store: Option<Bound<'a, PyDict>>,
        clock: Clock,
        ended: Ended,
    ) -> Answer {
        let mut out = Vec::with_capacity(256);
        match self.program.codec.encode(value, &mut out, limits::RESPONSE_BYTES_MAX) {
            Ok(()) => {
                let metrics = store
                    .filter(|store| !store.is_empty())
                    .map_or_else(Vec::new, |store| self.metrics(&store));
                let mut answer = self.answer(Outcome::Ok, out.into(), clock, ended);
                answer.metrics = metrics.into();
                answer
            }
            Err(fault) => {
                let text = cut(fault.message(self.py, ROOT), limits::EXCEPTION_TEXT_BYTES_MAX);
                log::say(&text);
                self.answer(Outcome::BadOutput, text.into(), clock, ended)
            }
        }
    }

    /// What was tracked, as one JSON object. A metric that JSON cannot hold, or that there is no room for, is left out and
    /// named in the log: a prediction is worth more to its caller than the record of it.
    fn metrics(&self, store: &Bound<'a, PyDict>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(b'{');
        for (key, value) in store.iter() {
            let kept = out.len();
            if kept > 1 {
                out.push(b',');
            }
            // One byte is for the closing brace.
            let bytes_max = limits::TRACKED_METRICS_BYTES_MAX - 1;
            let codec = &self.program.codec;
            let encoded = codec.encode(&key, &mut out, bytes_max).and_then(|()| {
                out.push(b':');
                codec.encode(&value, &mut out, bytes_max)
            });
            if let Err(fault) = encoded {
                out.truncate(kept);
                let name = key.to_string();
                let reason = fault.message(self.py, &name).replace("the function returned", "it holds");
                let name = cut(name, 100);
                log::say(&format!("the metric `{name}` was not recorded: {reason}"));
            }
        }
        out.push(b'}');
        out
    }

    fn answer(&mut self, outcome: Outcome, value: Bytes, clock: Clock, ended: Ended) -> Answer {
        let timings;
        (timings, self.used) = clock.end();
        Answer {
            outcome,
            value,
            metrics: Bytes::new(),
            timings,
            collects_metrics: self.program.tracking.as_ref().is_some_and(|tracking| tracking.collects),
            must_leave: false,
            is_draining: ended.is_draining,
        }
    }
}

/// Measures a call. CPU is that of the whole process, so that the threads of numerical libraries count.
struct Clock {
    lap: Instant,
    used: Option<Usage>,
    timings: Timings,
}

impl Clock {
    fn start(used: Option<Usage>) -> Self {
        let used = used.or_else(|| getrusage(UsageWho::RUSAGE_SELF).ok());
        Self { lap: Instant::now(), used, timings: Timings::default() }
    }

    fn lap_us(&mut self) -> u32 {
        let now = Instant::now();
        let lap = now - std::mem::replace(&mut self.lap, now);
        saturated_us(lap)
    }

    fn decoded(&mut self) {
        self.timings.decode_us = self.lap_us();
    }

    fn ran(&mut self) {
        self.timings.run_us = self.lap_us();
    }

    /// The end, and what the process has used until then.
    fn end(mut self) -> (Timings, Option<Usage>) {
        self.timings.encode_us = self.lap_us();
        let used = getrusage(UsageWho::RUSAGE_SELF).ok();
        if let (Some(now), Some(then)) = (&used, &self.used) {
            let since =
                |now: TimeVal, then: TimeVal| u32::try_from((now - then).num_microseconds()).unwrap_or(0);
            self.timings.cpu_user_us = since(now.user_time(), then.user_time());
            self.timings.cpu_system_us = since(now.system_time(), then.system_time());
            self.timings.memory_peak_kib = u32::try_from(now.max_rss()).unwrap_or(u32::MAX);
        }
        (self.timings, used)
    }
}

fn saturated_us(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
