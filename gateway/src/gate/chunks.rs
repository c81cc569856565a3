//! The end of a chunked body, found as its bytes pass.
//!
//! Stricter than the decoder behind it, and never a byte ahead of it: sizes are hexadecimal digits and nothing else,
//! lines end in CRLF, and a size past the limit is refused at its first digit that makes it so.

use super::{
    Fault,
    head::{is_token, is_value},
};

/// Digits of a chunk's size.
const DIGITS_MAX: u8 = 16;
/// Bytes of all extensions of a body. They mean nothing here.
const EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// Bytes of all trailers of a body. They mean nothing either.
const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Lines of trailers.
const TRAILERS_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    Begin,
    Digits,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    Line,
    Name,
    Value,
    TrailerLf,
    EndLf,
    End,
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    digits: u8,
    /// The size that is being read, then what is left of the chunk.
    size: u64,
    /// What the body may still bring.
    bytes_left: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: usize,
}

impl Chunks {
    /// At the beginning of a body that may bring so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            state: State::Begin,
            digits: 0,
            size: 0,
            bytes_left: bytes_max,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: 0,
        }
    }

    /// True when the body has ended.
    pub(crate) fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Looks at the next bytes: how many of them are this body's.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if self.state == State::Data {
                let passed = self.size.min((bytes.len() - at) as u64);
                self.size -= passed;
                at += usize::try_from(passed).expect("it is at most what is there");
                if self.size == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        let next = match (self.state, byte) {
            (State::Begin | State::Digits, _) if byte.is_ascii_hexdigit() => self.digit(byte)?,
            (State::Digits | State::Extension, b'\r') => State::SizeLf,
            (State::Digits, b';') => State::Extension,
            (State::Begin | State::Digits, _) => {
                return Err(Fault::Malformed("a chunk's size is not a hexadecimal number"));
            }
            (State::Extension, 0x21..0x7f) if self.extension_bytes < EXTENSION_BYTES_MAX => {
                self.extension_bytes += 1;
                State::Extension
            }
            (State::Extension, _) => return Err(Fault::Malformed("a chunk's extension is not one")),
            (State::SizeLf, b'\n') if self.size > 0 => {
                self.bytes_left -= self.size;
                State::Data
            }
            (State::SizeLf, b'\n') => State::Line,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.digits = 0;
                State::Begin
            }
            (State::Line, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::End,
            (State::Line | State::Name | State::Value | State::TrailerLf, _) => self.trailer(byte)?,
            _ => return Err(Fault::Malformed("a chunk does not end where its size says")),
        };
        Ok(next)
    }

    fn digit(&mut self, byte: u8) -> Result<State, Fault> {
        let value = (byte as char).to_digit(16).expect("it is a digit");
        self.digits += 1;
        if self.digits > DIGITS_MAX {
            return Err(Fault::Malformed("a chunk's size has too many digits"));
        }
        let before = if self.state == State::Begin { 0 } else { self.size };
        self.size = before.checked_mul(16).map_or(u64::MAX, |size| size | u64::from(value));
        if self.size > self.bytes_left { Err(Fault::TooLarge) } else { Ok(State::Digits) }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer_bytes += 1;
        if self.state == State::Line {
            self.trailers += 1;
        }
        if self.trailer_bytes > TRAILER_BYTES_MAX || self.trailers > TRAILERS_MAX {
            return Err(Fault::HeadTooLarge);
        }
        match (self.state, byte) {
            (State::Line | State::Name, _) if is_token(byte) => Ok(State::Name),
            (State::Name, b':') => Ok(State::Value),
            (State::Value, b'\r') => Ok(State::TrailerLf),
            (State::Value, _) if is_value(&[byte]) => Ok(State::Value),
            (State::TrailerLf, b'\n') => Ok(State::Line),
            _ => Err(Fault::Malformed("a trailer is not a header")),
        }
    }
}
