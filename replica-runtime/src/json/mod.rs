//! JSON to Python objects and back.
//!
//! In, straight to Python objects, what is unusual by `jiter`: integers are exact up to the 4,300 digits that Python itself allows; a
//! float too large for a double is refused rather than made infinite.
//!
//! Out, one walk into one buffer. What a value becomes:
//!
//! | Python | JSON |
//! | --- | --- |
//! | `None`, `bool`, `int` of any size, finite `float`, `str`, and subclasses | themselves |
//! | `dict`, and subclasses | object; keys `str`, and as by `json.dumps` `int`, `float`, `bool`, `None`; besides those that stand below for text or a number |
//! | `list`, `tuple`, and subclasses | array |
//! | `Enum` | its value |
//! | dataclass | object of its fields |
//! | `datetime`, `date`, `time`, pandas `Timestamp`, numpy `datetime64` | ISO 8601 text |
//! | `Decimal` | number, with its digits |
//! | `UUID` | text |
//! | numpy arrays and scalars, pandas `Series` and `Index`, `array.array`, tensors: whatever has `tolist()` | what `tolist()` gives |
//! | pandas `DataFrame` | array of one object per row |
//!
//! Refused, with the path to the value: NaN, infinities, `NaT`, lone surrogates, `bytes`, sets, iterators, anything else,
//! more than [`DEPTH_MAX`] levels (and so a container that holds itself), and more bytes than the limit.
//! Nothing here imports numpy or pandas: who returns their objects has imported them.

mod array;
mod decode;
mod encode;
mod fault;
mod floats;
mod number;
mod reader;
mod text;

pub use decode::{BadNumber, decode};
pub use encode::{Codec, DEPTH_MAX};
pub use fault::Fault;

#[cfg(test)]
mod tests;
