//! The usual JSON to Python objects. What is usual is most of all JSON; a number or a text that is not is left to `jiter`,
//! and of everything that is no JSON, or no JSON for us, nothing is said here but that: the whole of it is then read by
//! `jiter`, whose word it is.
//!
//! Instructions to read 158 KB of records, by callgrind: 10,330,000; 13,060,000 by `jiter` and a look for numbers that
//! may be too large; 9,370,000 by `orjson`. Of these more than half make and free Python's objects.

use std::{cell::RefCell, ptr};

use jiter::{Jiter, NumberAny, Peek};
use pyo3::{
    ffi,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString},
};

use super::{
    floats,
    number::{self, Number},
    text,
};

/// Levels of nesting, as many as the gateway lets through.
const DEPTH_MAX: usize = 128;
/// Bytes of a key that is remembered.
const KEY_BYTES_MAX: usize = 64;
/// Keys that are remembered from call to call.
const KEYS_MAX: usize = 1_024;

/// Text of keys, each at the place that its bytes say. The same keys come again, in one call and in the next, and a key
/// that is there already has its hash too.
type Keys = Vec<Option<Py<PyString>>>;

thread_local! {
    static KEYS: RefCell<Keys> = const { RefCell::new(Vec::new()) };
}

/// The Python objects of `json`, unless there is something in it that is for others to judge.
pub(super) fn read<'py>(py: Python<'py>, json: &[u8]) -> Option<Bound<'py, PyAny>> {
    KEYS.with(|keys| {
        let mut keys = keys.try_borrow_mut().ok()?;
        keys.resize_with(KEYS_MAX, || None);
        let mut reader = Reader { py, json, at: 0, keys: &mut keys, items: Vec::new() };
        let value = reader.value(0)?;
        reader.token().is_none().then_some(value)
    })
}

/// Methods that answer nothing leave what they have not understood to others.
struct Reader<'a, 'py> {
    py: Python<'py>,
    json: &'a [u8],
    at: usize,
    keys: &'a mut Keys,
    /// Of lists that are being read, the inner ones behind the outer ones.
    items: Vec<Bound<'py, PyAny>>,
}

impl<'a, 'py> Reader<'a, 'py> {
    /// The next byte that is no space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            match *self.json.get(self.at)? {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                token => return Some(token),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        match self.token()? {
            b'"' => self.text().map(Bound::into_any),
            first @ (b'-' | b'0'..=b'9') => self.number(first),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b't' => self.word(b"true", PyBool::new(self.py, true).to_owned().into_any()),
            b'f' => self.word(b"false", PyBool::new(self.py, false).to_owned().into_any()),
            b'n' => self.word(b"null", self.py.None().into_bound(self.py)),
            _ => None,
        }
    }

    fn word(&mut self, word: &[u8], value: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        self.json[self.at..].starts_with(word).then(|| self.at += word.len()).map(|()| value)
    }

    fn object(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        if depth == DEPTH_MAX {
            return None;
        }
        let dict = PyDict::new(self.py);
        self.at += 1;
        if self.token()? == b'}' {
            self.at += 1;
            return Some(dict.into_any());
        }
        loop {
            if self.token()? != b'"' {
                return None;
            }
            let key = self.key()?;
            if self.token()? != b':' {
                return None;
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            // SAFETY: all three are live objects, the first a dict, and the interpreter is attached.
            let set = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
            if set != 0 {
                // No memory; the other reader meets it again, and says so.
                drop(PyErr::take(self.py));
                return None;
            }
            match self.token()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(dict.into_any())
    }

    fn list(&mut self, depth: usize) -> Option<Bound<'py, PyAny>> {
        if depth == DEPTH_MAX {
            return None;
        }
        self.at += 1;
        if self.token()? == b']' {
            self.at += 1;
            return Some(PyList::empty(self.py).into_any());
        }
        let begin = self.items.len();
        loop {
            let item = match self.token()? {
                // The way by `value` costs a number of a long list a tenth more.
                first @ (b'-' | b'0'..=b'9') => self.number(first)?,
                _ => self.value(depth + 1)?,
            };
            let is_float = item.is_exact_instance_of::<PyFloat>();
            self.items.push(item);
            match self.token()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
            if is_float {
                self.token()?;
                self.floats();
            }
        }
        self.at += 1;
        let items = self.items.drain(begin..);
        let count = ffi::Py_ssize_t::try_from(items.len()).ok()?;
        // SAFETY: the interpreter is attached. The list is new and nobody else's, has as many places as there are items,
        // and takes the reference to each; until the last place is filled nothing else runs.
        unsafe {
            let list = Bound::from_owned_ptr_or_opt(self.py, ffi::PyList_New(count))?;
            for (place, item) in (0..count).zip(items) {
                ffi::PyList_SET_ITEM(list.as_ptr(), place, item.into_ptr());
            }
            Some(list)
        }
    }

    /// As many items as are usual floats, with the comma behind each.
    #[inline]
    fn floats(&mut self) {
        let mut floats = [0.0; floats::BATCH];
        loop {
            let count;
            (count, self.at) = floats::read(self.json, self.at, &mut floats);
            self.items.extend(floats[..count].iter().map(|float| PyFloat::new(self.py, *float).into_any()));
            if count < floats.len() {
                return;
            }
        }
    }

    #[inline]
    fn number(&mut self, first: u8) -> Option<Bound<'py, PyAny>> {
        let rest = &self.json[self.at..];
        let Some((number, bytes)) = number::read(rest) else { return self.unusual_number(first) };
        self.at += bytes;
        Some(match number {
            Number::Int(int) => PyInt::new(self.py, int).into_any(),
            Number::Float(float) => PyFloat::new(self.py, float).into_any(),
        })
    }

    #[cold]
    fn unusual_number(&mut self, first: u8) -> Option<Bound<'py, PyAny>> {
        let mut jiter = Jiter::new(&self.json[self.at..]);
        let number = match jiter.known_number(Peek::new(first)).ok()? {
            NumberAny::Float(float) if !float.is_finite() => return None,
            NumberAny::Float(float) => PyFloat::new(self.py, float).into_any(),
            int @ NumberAny::Int(_) => int.into_pyobject(self.py).ok()?.into_any(),
        };
        self.at += jiter.current_index();
        Some(number)
    }

    fn text(&mut self) -> Option<Bound<'py, PyString>> {
        match self.plain()? {
            Plain::Ascii(text) => ascii(self.py, text),
            Plain::Other(text) => Some(PyString::new(self.py, text)),
            Plain::Escaped => self.escaped(),
        }
    }

    fn key(&mut self) -> Option<Bound<'py, PyString>> {
        match self.plain()? {
            Plain::Ascii(text) => {
                let Some(place) = place(text) else { return ascii(self.py, text) };
                let kept = &mut self.keys[place];
                if let Some(key) = kept.as_ref().map(|key| key.bind(self.py)).filter(|key| is(key, text)) {
                    return Some(key.clone());
                }
                let key = ascii(self.py, text)?;
                *kept = Some(key.clone().unbind());
                Some(key)
            }
            Plain::Other(text) => Some(PyString::new(self.py, text)),
            Plain::Escaped => self.escaped(),
        }
    }

    /// The text whose quote is here, as it stands there. One with an escape is left where it is.
    fn plain(&mut self) -> Option<Plain<'a>> {
        let json = self.json;
        let rest = &json[self.at + 1..];
        let (length, is_ascii) = text::plain_bytes(rest);
        match rest.get(length)? {
            b'"' => {}
            b'\\' => return Some(Plain::Escaped),
            _ => return None,
        }
        self.at += length + 2;
        let text = &rest[..length];
        Some(if is_ascii { Plain::Ascii(text) } else { Plain::Other(str::from_utf8(text).ok()?) })
    }

    fn escaped(&mut self) -> Option<Bound<'py, PyString>> {
        let mut jiter = Jiter::new(&self.json[self.at..]);
        let text = PyString::new(self.py, jiter.known_str().ok()?);
        self.at += jiter.current_index();
        Some(text)
    }
}

enum Plain<'a> {
    Ascii(&'a [u8]),
    Other(&'a str),
    Escaped,
}

/// A `str` of these ASCII bytes.
fn ascii<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyString>> {
    if text.len() < 2 {
        // There is one object for each, and that is found here.
        return Some(PyString::new(py, str::from_utf8(text).ok()?));
    }
    // SAFETY: the interpreter is attached. A string made for characters up to 127 holds one byte for each and a zero, and is
    // nobody else's yet.
    unsafe {
        let string = ffi::PyUnicode_New(ffi::Py_ssize_t::try_from(text.len()).ok()?, 127);
        let string = Bound::from_owned_ptr_or_opt(py, string)?;
        let data = ffi::PyUnicode_DATA(string.as_ptr()).cast::<u8>();
        ptr::copy_nonoverlapping(text.as_ptr(), data, text.len());
        Some(string.cast_into_unchecked())
    }
}

fn is(key: &Bound<'_, PyString>, text: &[u8]) -> bool {
    text::of(key).is_some_and(|key| key.as_bytes() == text)
}

/// Where a key is remembered, by its length and the four bytes at each of its ends.
fn place(text: &[u8]) -> Option<usize> {
    if text.len() > KEY_BYTES_MAX {
        return None;
    }
    let (first, last) = match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
        _ => (text.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)), 0),
    };
    let word = u64::from(first) | u64::from(last) << 32;
    let mixed = (word ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> 48) as usize % KEYS_MAX)
}
