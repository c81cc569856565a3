//! Python objects to JSON, in one walk, by exact type, the most frequent first.
//!
//! Code of the user's may run in the middle of it (`tolist`, a property of a dataclass) and change the container that is
//! being walked. So every object is held by a reference of its own while it is looked at, lists are read by index against
//! their present length, and a dictionary that changed is an error.

use pyo3::{
    exceptions::PyRuntimeError,
    ffi,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple},
};

use super::{
    array,
    fault::{Fault, Problem, Step},
    text,
};

/// Levels of nesting: far above any real answer, far below what the main thread's stack of 8 MiB holds.
pub const DEPTH_MAX: usize = 1_000;

/// What the walk needs of Python, made once per process.
#[derive(Debug)]
pub struct Codec {
    simplify: Py<PyAny>,
    key: Py<PyAny>,
    raw_number: Py<PyAny>,
    not_json: Py<PyAny>,
}

impl Codec {
    /// Compiles the Python half.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let module =
            PyModule::from_code(py, crate::python_code::SIMPLIFY, c"<millgate json>", c"_millgate_json")?;
        // It is nobody's to import.
        py.import("sys")?.getattr("modules")?.del_item("_millgate_json").ok();
        Ok(Self {
            simplify: module.getattr("simplify")?.unbind(),
            key: module.getattr("key")?.unbind(),
            raw_number: module.getattr("RawNumber")?.unbind(),
            not_json: module.getattr("NotJson")?.unbind(),
        })
    }

    /// Appends the JSON of `value` to `out`, which may grow to `bytes_max`. After an error `out` holds a part.
    pub fn encode(&self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Fault> {
        let mut walk = Walk { codec: self, out, bytes_max };
        walk.value(value, 0)?;
        walk.check_size()
    }
}

struct Walk<'a> {
    codec: &'a Codec,
    out: &'a mut Vec<u8>,
    bytes_max: usize,
}

impl Walk<'_> {
    /// Part of the loops over containers, so that a text or a number in one costs no call of its own.
    #[expect(clippy::inline_always, reason = "records: 3,750,000 instructions with it, 4,260,000 without")]
    #[inline(always)]
    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Fault> {
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)
        } else if let Ok(float) = value.cast_exact::<PyFloat>() {
            self.float(float.value())
        } else if let Ok(int) = value.cast_exact::<PyInt>() {
            self.int(int)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, depth)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, depth)
        } else if value.is_none() {
            self.out.extend_from_slice(b"null");
            Ok(())
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.out.extend_from_slice(if truth.is_true() { b"true" } else { b"false" });
            Ok(())
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.tuple(tuple, depth)
        } else {
            self.subclass(value, depth)
        }
    }

    /// Subclasses of the builtin types, as `json.dumps` takes them; a mapping in the order that its own `items` gives.
    #[cold]
    fn subclass(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Fault> {
        if let Ok(text) = value.cast::<PyString>() {
            self.text(text)
        } else if let Ok(float) = value.cast::<PyFloat>() {
            self.float(float.value())
        } else if let Ok(int) = value.cast::<PyInt>() {
            self.int(int)
        } else if let Ok(list) = value.cast::<PyList>() {
            self.list(list, depth)
        } else if value.is_instance_of::<PyDict>() {
            let items = value.call_method0("items").map_err(Fault::raised)?;
            let pairs = items.try_iter().map_err(Fault::raised)?;
            self.pairs(
                pairs
                    .map(|pair| pair.and_then(|pair| pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>())),
                depth,
            )
        } else {
            self.other(value, depth)
        }
    }

    fn other(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        if array::is_array(value) && array::encode(value, self.out, self.bytes_max)? {
            return Ok(());
        }
        let py = value.py();
        let simple = self.codec.simplify.bind(py).call1((value,)).map_err(|error| self.refusal(py, error))?;
        if simple.get_type().is(self.codec.raw_number.bind(py)) {
            let digits = simple.str().map_err(Fault::raised)?;
            self.out.extend_from_slice(digits.to_str().map_err(Fault::raised)?.as_bytes());
            return Ok(());
        }
        self.value(&simple, depth + 1)
    }

    fn refusal(&self, py: Python<'_>, error: PyErr) -> Fault {
        if error.get_type(py).is(self.codec.not_json.bind(py)) {
            Fault::not_json(error.value(py).to_string())
        } else {
            Fault::raised(error)
        }
    }

    #[inline]
    fn text(&mut self, text: &Bound<'_, PyString>) -> Result<(), Fault> {
        let Some(text) = text::of(text) else { return Err(Fault::not_json("text with a lone surrogate")) };
        // Before it is copied: one text may be larger than the memory that the answer may have.
        if text.len() > self.bytes_max {
            return Err(Fault::new(Problem::TooLarge(self.bytes_max)));
        }
        text::push(self.out, text);
        Ok(())
    }

    #[inline]
    fn float(&mut self, value: f64) -> Result<(), Fault> {
        push_float(self.out, value)
    }

    #[inline]
    fn int(&mut self, int: &Bound<'_, PyInt>) -> Result<(), Fault> {
        let mut overflow = 0;
        // SAFETY: `int` is a live Python int and the interpreter is attached. No exception is left behind: -1 with
        // overflow 0 is the number -1, as the object is an int already.
        let small = unsafe { ffi::PyLong_AsLongLongAndOverflow(int.as_ptr(), &raw mut overflow) };
        if overflow == 0 {
            serde_json::to_writer(&mut *self.out, &small).expect("numbers always serialize into memory");
            return Ok(());
        }
        self.long_int(int)
    }

    #[cold]
    fn long_int(&mut self, int: &Bound<'_, PyInt>) -> Result<(), Fault> {
        // `int.__repr__`, not the object's own: a subclass may print itself in another way.
        let py = int.py();
        let digits = py
            .get_type::<PyInt>()
            .call_method1("__repr__", (int,))
            .map_err(|error| Fault::not_json(format!("an integer that is too long: {}", error.value(py))))?;
        let digits = digits.cast::<PyString>().map_err(|error| Fault::raised(error.into()))?;
        self.out.extend_from_slice(digits.to_str().map_err(Fault::raised)?.as_bytes());
        Ok(())
    }

    #[inline(never)]
    fn list(&mut self, list: &Bound<'_, PyList>, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        self.out.push(b'[');
        let mut index = 0;
        while index < list.len() {
            // SAFETY: the index is within the list as it is now; the item is held by a reference of its own.
            let item = unsafe { list.get_item_unchecked(index) };
            if index > 0 {
                self.out.push(b',');
            }
            self.value(&item, depth + 1).map_err(|fault| fault.at(Step::Index(index)))?;
            self.check_size()?;
            index += 1;
        }
        self.out.push(b']');
        Ok(())
    }

    #[inline(never)]
    fn tuple(&mut self, tuple: &Bound<'_, PyTuple>, depth: usize) -> Result<(), Fault> {
        check_depth(depth)?;
        self.out.push(b'[');
        for (index, item) in tuple.iter_borrowed().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.value(&item, depth + 1).map_err(|fault| fault.at(Step::Index(index)))?;
            self.check_size()?;
        }
        self.out.push(b']');
        Ok(())
    }

    #[inline(never)]
    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Result<(), Fault> {
        let py = dict.py();
        let count = dict.len();
        let mut position = 0;
        let next = std::iter::from_fn(|| {
            if dict.len() != count {
                return Some(Err(PyRuntimeError::new_err("dictionary changed size while it was made JSON")));
            }
            let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: `dict` is a live dict and the interpreter is attached. The borrowed references are made owned
            // at once, before any other code can run.
            unsafe {
                if ffi::PyDict_Next(dict.as_ptr(), &raw mut position, &raw mut key, &raw mut value) == 0 {
                    return None;
                }
                Some(Ok((Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value))))
            }
        });
        self.pairs(next, depth)
    }

    fn pairs<'py>(
        &mut self,
        pairs: impl Iterator<Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>>,
        depth: usize,
    ) -> Result<(), Fault> {
        check_depth(depth)?;
        self.out.push(b'{');
        for (index, pair) in pairs.enumerate() {
            let (key, value) = pair.map_err(Fault::raised)?;
            if index > 0 {
                self.out.push(b',');
            }
            self.key(&key)?;
            self.out.push(b':');
            self.value(&value, depth + 1).map_err(|fault| fault.at(Step::Key(key.to_string())))?;
            self.check_size()?;
        }
        self.out.push(b'}');
        Ok(())
    }

    #[inline]
    fn key(&mut self, key: &Bound<'_, PyAny>) -> Result<(), Fault> {
        match key.cast_exact::<PyString>() {
            Ok(text) => self.text(text),
            Err(_) => self.other_key(key),
        }
    }

    #[cold]
    fn other_key(&mut self, key: &Bound<'_, PyAny>) -> Result<(), Fault> {
        if let Ok(text) = key.cast::<PyString>() {
            return self.text(text);
        }
        let is_plain = key.is_none() || key.is_instance_of::<PyInt>() || key.is_instance_of::<PyFloat>();
        if !is_plain {
            let py = key.py();
            let simple = self.codec.key.bind(py).call1((key,)).map_err(|error| self.refusal(py, error))?;
            // One step only: what stands for the key must be plain now.
            return if let Ok(text) = simple.cast::<PyString>() {
                self.text(text)
            } else if simple.is_none()
                || simple.is_instance_of::<PyInt>()
                || simple.is_instance_of::<PyFloat>()
            {
                self.key(&simple)
            } else {
                Err(Fault::not_json(format!("a dictionary with a key of type `{}`", key.get_type())))
            };
        }
        let begin = self.out.len();
        self.out.push(b'"');
        self.value(key, DEPTH_MAX)?;
        debug_assert!(!self.out[begin + 1..].contains(&b'"'), "numbers, true, false and null hold no quotes");
        self.out.push(b'"');
        Ok(())
    }

    fn check_size(&self) -> Result<(), Fault> {
        if self.out.len() > self.bytes_max {
            return Err(Fault::new(Problem::TooLarge(self.bytes_max)));
        }
        Ok(())
    }
}

fn check_depth(depth: usize) -> Result<(), Fault> {
    if depth >= DEPTH_MAX { Err(Fault::new(Problem::TooDeep(DEPTH_MAX))) } else { Ok(()) }
}

/// The shortest text that reads back as the same number; `1.0` stays a float.
pub(super) fn push_float(out: &mut Vec<u8>, value: f64) -> Result<(), Fault> {
    if !value.is_finite() {
        let name = match value {
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => "NaN",
        };
        return Err(Fault::not_json(format!("`{name}`")));
    }
    serde_json::to_writer(out, &value).expect("numbers always serialize into memory");
    Ok(())
}
