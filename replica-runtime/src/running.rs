//! The call that runs, for a function that asks who calls (`millgate.current_call`). Costs a call two stores; nothing is
//! made of it before it is asked for.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

use millgate_contract::frame::Call;
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyModule},
};

/// The SDK asks this module, and looks for it when it is asked itself: no order of imports matters.
const MODULE: &str = "_millgate_runtime";

/// Written by the main thread, attached to Python; read by whoever is attached.
static RUNNING: AtomicPtr<Call> = AtomicPtr::new(ptr::null_mut());

/// Takes the call back, however it ends.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        RUNNING.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Runs something as part of a call.
pub(crate) fn during<T>(_: Python<'_>, call: &Call, run: impl FnOnce() -> T) -> T {
    RUNNING.store(ptr::from_ref(call).cast_mut(), Ordering::Release);
    let _over = Over;
    run()
}

/// Request id and `traceparent` (empty where the caller sent none); none between calls.
fn read(_: Python<'_>) -> Option<(&str, &str)> {
    // SAFETY: null, or a call that `during` borrows until it has stored null. Both stores are made with Python attached, and
    // so is this reading, whose result is made Python's before it detaches: the call cannot end meanwhile. In a child
    // that user code forks, the memory stays as it was.
    let call = unsafe { RUNNING.load(Ordering::Acquire).as_ref() }?;
    Some((call.request_id.as_str(), &call.traceparent))
}

/// Makes the module that the SDK asks.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let module = PyModule::new(py, MODULE)?;
    let call = PyCFunction::new_closure(py, Some(c"call"), None, |arguments, _| {
        read(arguments.py()).map(|(id, traceparent)| (id.to_owned(), traceparent.to_owned()))
    })?;
    module.add("call", call)?;
    py.import("sys")?.getattr("modules")?.set_item(MODULE, module)
}
