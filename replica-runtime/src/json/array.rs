//! Arrays of numbers by the buffer protocol: numpy arrays and `array.array`, without a Python object per number.
//!
//! Only these two types, exactly: others have a buffer that is not what they mean. A numpy `datetime64` shows its eight
//! bytes, a masked array the values under its mask, `bytes` are no list of numbers. Those go by `tolist`, or are refused.

use std::ffi::CStr;

use pyo3::{ffi, prelude::*};

use super::{
    encode::push_float,
    fault::{Fault, Problem, Step},
};

/// Dimensions taken here; others go by `tolist`.
const DIMENSIONS_MAX: usize = 8;

/// Is worth a look by [`encode`].
pub(super) fn is_array(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `value` is a live object; every type has a NUL-terminated name that lives as long as the type.
    let name = unsafe { CStr::from_ptr((*ffi::Py_TYPE(value.as_ptr())).tp_name) };
    name == c"numpy.ndarray" || name == c"array.array"
}

/// Appends the array; false, and nothing appended, if it is not contiguous numbers of a known format.
pub(super) fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, bytes_max: usize) -> Result<bool, Fault> {
    let Some(view) = View::of(value) else { return Ok(false) };
    let Some((shape, number)) = view.shape().zip(view.number()) else { return Ok(false) };
    let mut at = 0;
    rows(
        &shape,
        &mut |out| {
            let result = number(view.item(at), out);
            at += 1;
            if out.len() > bytes_max { Err(Fault::new(Problem::TooLarge(bytes_max))) } else { result }
        },
        out,
    )?;
    Ok(true)
}

fn rows(
    shape: &[usize],
    number: &mut impl FnMut(&mut Vec<u8>) -> Result<(), Fault>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Some((&count, inner)) = shape.split_first() else { return number(out) };
    out.push(b'[');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        rows(inner, number, out).map_err(|fault| fault.at(Step::Index(index)))?;
    }
    out.push(b']');
    Ok(())
}

type PushNumber = fn(&[u8], &mut Vec<u8>) -> Result<(), Fault>;

/// A buffer held open; the object cannot resize it meanwhile.
struct View(Box<ffi::Py_buffer>);

impl View {
    fn of(value: &Bound<'_, PyAny>) -> Option<Self> {
        let mut buffer = Box::new(ffi::Py_buffer::new());
        let flags = ffi::PyBUF_FORMAT | ffi::PyBUF_C_CONTIGUOUS;
        // SAFETY: `value` is a live object, the interpreter is attached, and the box outlives the view.
        if unsafe { ffi::PyObject_GetBuffer(value.as_ptr(), &raw mut *buffer, flags) } != 0 {
            drop(PyErr::take(value.py()));
            return None;
        }
        Some(Self(buffer))
    }

    /// Lengths by dimension, outermost first; at least one dimension.
    fn shape(&self) -> Option<Vec<usize>> {
        let dimensions = usize::try_from(self.0.ndim).ok().filter(|n| (1..=DIMENSIONS_MAX).contains(n))?;
        // SAFETY: with `PyBUF_ND` (part of the flags) and `ndim` ≥ 1, `shape` has `ndim` entries.
        let shape = unsafe { std::slice::from_raw_parts(self.0.shape, dimensions) };
        let shape = shape.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>()?;
        let bytes = shape.iter().try_fold(self.item_bytes(), |bytes, n| bytes.checked_mul(*n))?;
        (bytes == usize::try_from(self.0.len).ok()?).then_some(shape)
    }

    fn item_bytes(&self) -> usize {
        usize::try_from(self.0.itemsize).unwrap_or(0)
    }

    /// How one number of this format is written.
    fn number(&self) -> Option<PushNumber> {
        if self.0.format.is_null() {
            return None;
        }
        // SAFETY: a format is NUL-terminated text that lives as long as the view.
        let format = unsafe { CStr::from_ptr(self.0.format) }.to_bytes();
        // `struct` codes in native byte order; the width comes from the view, as `l` differs between systems.
        let code = match format {
            [b'@' | b'=' | b'<', code] if cfg!(target_endian = "little") => *code,
            [code] => *code,
            _ => return None,
        };
        Some(match (code, self.item_bytes()) {
            (b'd', 8) => |raw, out| push_float(out, f64::from_ne_bytes(sized(raw))),
            (b'f', 4) => |raw, out| push_float(out, f64::from(f32::from_ne_bytes(sized(raw)))),
            (b'l' | b'q', 8) => |raw, out| push_int(out, i64::from_ne_bytes(sized(raw))),
            (b'L' | b'Q', 8) => |raw, out| push_int(out, u64::from_ne_bytes(sized(raw))),
            (b'i' | b'l', 4) => |raw, out| push_int(out, i32::from_ne_bytes(sized(raw))),
            (b'I' | b'L', 4) => |raw, out| push_int(out, u32::from_ne_bytes(sized(raw))),
            (b'h', 2) => |raw, out| push_int(out, i16::from_ne_bytes(sized(raw))),
            (b'H', 2) => |raw, out| push_int(out, u16::from_ne_bytes(sized(raw))),
            (b'b', 1) => |raw, out| push_int(out, i8::from_ne_bytes(sized(raw))),
            (b'B', 1) => |raw, out| push_int(out, raw[0]),
            (b'?', 1) => |raw, out| {
                out.extend_from_slice(if raw[0] == 0 { b"false" } else { b"true" });
                Ok(())
            },
            _ => return None,
        })
    }

    fn item(&self, at: usize) -> &[u8] {
        let bytes = self.item_bytes();
        // SAFETY: contiguous, and `shape` has made sure that the items asked for make up `len` bytes in all.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>().add(at * bytes), bytes) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the view was got by `PyObject_GetBuffer` and is released once; only made and dropped within
        // `encode`, where the interpreter is attached.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.0) }
    }
}

fn sized<const N: usize>(raw: &[u8]) -> [u8; N] {
    raw.try_into().expect("the format was matched with the width of an item")
}

#[allow(clippy::unnecessary_wraps, reason = "has the form of a number's writer")]
fn push_int(out: &mut Vec<u8>, value: impl serde::Serialize) -> Result<(), Fault> {
    serde_json::to_writer(out, &value).expect("numbers always serialize into memory");
    Ok(())
}
