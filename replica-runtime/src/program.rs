//! The function file, imported, and the function in it.

use std::path::Path;

use millgate_contract::{
    limits,
    nursery::{Failure, Step},
    spec::FunctionSpec,
};
use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict},
};

use crate::{json::Codec, page, python_code, running};

/// Python's half of the runtime, `bootstrap.py`.
#[derive(Debug)]
pub(crate) struct Bootstrap(Py<PyModule>);

impl Bootstrap {
    /// Compiles it.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let module = PyModule::from_code(py, python_code::BOOTSTRAP, c"<millgate>", c"_millgate_bootstrap")?;
        // It is nobody's to import.
        py.import("sys")?.getattr("modules")?.del_item("_millgate_bootstrap").ok();
        let mark = PyCFunction::new_closure(py, None, None, |arguments, _| -> PyResult<()> {
            page::mark(arguments.get_item(0)?.extract()?);
            Ok(())
        })?;
        module.call_method1("open_streams", (mark,))?;
        running::install(py)?;
        Ok(Self(module.unbind()))
    }

    /// `Type: text`, bounded.
    pub(crate) fn describe(&self, py: Python<'_>, error: &PyErr) -> String {
        let text = self
            .0
            .bind(py)
            .call_method1("describe", (error.value(py),))
            .map_or_else(|_| "an exception that cannot be shown".to_owned(), |text| text.to_string());
        cut(text, limits::EXCEPTION_TEXT_BYTES_MAX)
    }

    /// Prints the traceback to the log.
    pub(crate) fn show(&self, py: Python<'_>, error: &PyErr) {
        // Printing is best effort: the user may have replaced what it is printed to. The value alone has no traceback
        // before Python 3.12; `into_value` puts it there.
        let _ = self.0.bind(py).call_method1("show", (error.clone_ref(py).into_value(py),));
    }

    /// What was printed without an end of line reaches the log.
    pub(crate) fn flush(&self, py: Python<'_>) {
        let _ = self.0.bind(py).call_method0("flush");
    }

    /// Gives a forked child random numbers of its own.
    pub(crate) fn reseed(&self, py: Python<'_>) {
        if let Err(error) = self.0.bind(py).call_method0("reseed") {
            self.show(py, &error);
        }
    }

    /// A new event loop.
    pub(crate) fn event_loop(&self, py: Python<'_>) -> PyResult<EventLoop> {
        Ok(EventLoop(self.0.bind(py).getattr("EventLoop")?.call0()?.unbind()))
    }
}

/// The event loop of coroutine functions.
#[derive(Debug)]
pub(crate) struct EventLoop(Py<PyAny>);

impl EventLoop {
    /// Runs a coroutine to its end.
    pub(crate) fn run<'py>(&self, coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(coroutine.py()).call_method1("run", (coroutine,))
    }

    /// Runs tasks until the descriptor can be read.
    pub(crate) fn idle(&self, py: Python<'_>, fd: i32) -> PyResult<()> {
        self.0.bind(py).call_method1("idle", (fd,)).map(drop)
    }
}

/// The imported file and all that a call needs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) bootstrap: Bootstrap,
    pub(crate) codec: Codec,
    pub(crate) function: Py<PyAny>,
    /// The SDK's store of tracked metrics, when the file (or what it imports) has loaded the SDK.
    pub(crate) tracking: Option<Tracking>,
    module: Py<PyAny>,
}

/// `millgate._tracking`: what a call tracks is put into a dictionary there.
#[derive(Debug)]
pub(crate) struct Tracking {
    namespace: Py<PyDict>,
    /// The function asked for its metrics to be collected.
    pub(crate) collects: bool,
}

impl Tracking {
    /// A call begins: what it tracks goes to a dictionary of its own.
    pub(crate) fn begin<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let store = PyDict::new(py);
        self.namespace.bind(py).set_item(pyo3::intern!(py, "current"), &store)?;
        Ok(store)
    }

    /// It has ended.
    pub(crate) fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.namespace.bind(py).set_item(pyo3::intern!(py, "current"), py.None())
    }
}

impl Program {
    /// Imports the file and finds the function.
    pub(crate) fn load(py: Python<'_>, spec: &FunctionSpec) -> Result<Self, Failure> {
        let of_python =
            |error: PyErr| Failure { step: Step::Python, message: format!("python did not start: {error}") };
        let bootstrap = Bootstrap::new(py).map_err(of_python)?;
        let codec = Codec::new(py).map_err(of_python)?;
        let result = Self::load_file(py, &bootstrap, spec);
        bootstrap.flush(py);
        let (module, function, collects) = result.map_err(|error| bootstrap.failure(py, &error))?;
        let tracking = Self::find_tracking(py, collects).map_err(of_python)?;
        Ok(Self { bootstrap, codec, function, tracking, module })
    }

    fn load_file(
        py: Python<'_>,
        bootstrap: &Bootstrap,
        spec: &FunctionSpec,
    ) -> PyResult<(Py<PyAny>, Py<PyAny>, bool)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let file = text(&spec.file);
        let python_path: Vec<String> = spec.python_path.iter().map(|path| text(path)).collect();
        let bootstrap = bootstrap.0.bind(py);
        let module = bootstrap.call_method1("load", (text(&spec.root), &file, python_path))?;
        let found = bootstrap.call_method1("find", (&module, file, &spec.function))?;
        let (function, collects) = found.extract::<(Py<PyAny>, bool)>()?;
        Ok((module.unbind(), function, collects))
    }

    fn find_tracking(py: Python<'_>, collects: bool) -> PyResult<Option<Tracking>> {
        let modules = py.import("sys")?.getattr("modules")?;
        let Ok(module) = modules.get_item("millgate._tracking") else { return Ok(None) };
        let namespace = module.getattr("__dict__")?.cast_into::<PyDict>()?;
        namespace.set_item("in_replica", true)?;
        Ok(Some(Tracking { namespace: namespace.unbind(), collects }))
    }

    /// `setup` or `teardown` of the file, if it has one.
    pub(crate) fn hook<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let hook = self.bootstrap.0.bind(py).call_method1("hook", (&self.module, name))?;
        Ok((!hook.is_none()).then_some(hook))
    }
}

impl Bootstrap {
    /// A failure that `bootstrap.py` has put into words, or else an exception of our own.
    fn failure(&self, py: Python<'_>, error: &PyErr) -> Failure {
        let value = error.value(py);
        let words =
            value.getattr("step").and_then(|step| Ok((step.extract::<String>()?, value.getattr("message")?)));
        match words {
            Ok((step, message)) => Failure {
                step: if step == "function" { Step::Function } else { Step::Import },
                message: cut(message.to_string(), limits::EXCEPTION_TEXT_BYTES_MAX),
            },
            Err(_) => Failure { step: Step::Import, message: self.describe(py, error) },
        }
    }
}

/// At most `bytes_max` bytes, cut at a character.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character() {
        assert_eq!(cut("aé".repeat(3), 5), "aéa");
        assert_eq!(cut("ab".into(), 5), "ab");
    }
}
