//! The body of a call, split into its access key and the raw `request`, and validated on the way without building a
//! tree: what is refused here never reaches Python.
//!
//! Accepts exactly RFC 8259 with the limits of the contract: UTF-8 without a byte order mark, one object, no value
//! after it, at most [`JSON_DEPTH_MAX`] levels, no lone surrogate, `accessKey` and `request` at most once. Whether
//! Python can hold a number is the replica's question, not this one's.
//!
//! Strings and digits are looked at eight bytes at a time, many numbers one after the other 64 ([`numbers`]).

mod numbers;

use std::{borrow::Cow, ops::Range};

use millgate_contract::limits::JSON_DEPTH_MAX;

/// A call's body, by its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The value of `accessKey`, if there is one.
    pub access_key: Option<Cow<'a, str>>,
    /// Where the value of `request` stands in the body.
    pub request: Range<usize>,
}

impl Split<'_> {
    /// The same, without the body.
    pub(crate) fn into_owned(self) -> Split<'static> {
        Split { access_key: self.access_key.map(|key| Cow::Owned(key.into_owned())), request: self.request }
    }
}

/// Why a body is not a call: what, and at which byte (from 0).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    what: &'static str,
    at: usize,
}

// One bit a level, the outermost object not counted.
const _: () = assert!(JSON_DEPTH_MAX <= 128);

/// Numbers one after the other in an array, from which on more of them are expected.
const NUMBERS_MIN: u32 = 8;
/// Bytes of numbers that were found at once, below which there are not as many as was expected.
const NUMBERS_BYTES_MIN: usize = 32;

/// Splits and validates.
pub fn split(body: &[u8]) -> Result<Split<'_>, Malformed> {
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(Malformed {
            what: "the body begins with a byte order mark, which JSON does not allow,",
            at: 0,
        });
    }
    let text = std::str::from_utf8(body)
        .map_err(|e| Malformed { what: "the body is not UTF-8", at: e.valid_up_to() })?;
    Scanner { text, bytes: body, at: 0 }.body()
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn body(mut self) -> Result<Split<'a>, Malformed> {
        let (mut access_key, mut request) = (None, None);
        self.blanks();
        if self.peek() != Some(b'{') {
            return self.fail("the body is not a JSON object: expected `{`");
        }
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let key_at = self.at;
                let key = self.text_value("expected a key in double quotes")?;
                self.colon()?;
                self.blanks();
                match &*key {
                    "accessKey" => {
                        let value = self.text_value("`accessKey` is not text: expected `\"`")?;
                        if access_key.replace(value).is_some() {
                            return Err(Malformed { what: "`accessKey` is there twice; again", at: key_at });
                        }
                    }
                    "request" => {
                        let begin = self.at;
                        self.value()?;
                        if request.replace(begin..self.at).is_some() {
                            return Err(Malformed { what: "`request` is there twice; again", at: key_at });
                        }
                    }
                    _ => self.value()?,
                }
                self.blanks();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    _ => return self.fail("expected `,` or `}`"),
                }
                self.blanks();
            }
        }
        self.blanks();
        if self.at < self.bytes.len() {
            return self.fail("something follows the JSON object");
        }
        match request {
            Some(request) => Ok(Split { access_key, request }),
            None => self.fail("the body has no `request`; it ends"),
        }
    }

    /// One value of any kind, the levels below it kept as bits instead of by recursion.
    fn value(&mut self) -> Result<(), Malformed> {
        // Bit 0 is the innermost open level: set for an object, clear for an array.
        let mut levels: u128 = 0;
        let mut depth = 1;
        // One after the other, just before this.
        let mut numbers = 0;
        'value: loop {
            self.blanks();
            match self.peek() {
                Some(opening @ (b'{' | b'[')) => {
                    if depth == JSON_DEPTH_MAX {
                        return self.fail("nested over 128 levels");
                    }
                    let is_object = opening == b'{';
                    numbers = 0;
                    self.at += 1;
                    self.blanks();
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        depth += 1;
                        levels = levels << 1 | u128::from(is_object);
                        if is_object {
                            self.key()?;
                        }
                        continue 'value;
                    }
                }
                Some(b'"') => {
                    self.string("expected `\"`")?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    numbers += 1;
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(b'N' | b'I') => return self.fail("NaN and Infinity are not JSON: found one"),
                Some(_) => return self.fail("expected a value"),
                None => return self.fail("the body is cut short: expected a value"),
            }
            loop {
                if depth == 1 {
                    return Ok(());
                }
                self.blanks();
                let is_object = levels & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if is_object {
                            self.blanks();
                            self.key()?;
                        } else if numbers >= NUMBERS_MIN {
                            self.blanks();
                            let bytes = numbers::with_commas(&self.bytes[self.at..]);
                            self.at += bytes;
                            if bytes < NUMBERS_BYTES_MIN {
                                numbers = 0;
                            }
                        }
                        continue 'value;
                    }
                    Some(b'}') if is_object => {}
                    Some(b']') if !is_object => {}
                    Some(_) if is_object => return self.fail("expected `,` or `}`"),
                    Some(_) => return self.fail("expected `,` or `]`"),
                    None => return self.fail("the body is cut short: expected `,` or an end"),
                }
                self.at += 1;
                depth -= 1;
                levels >>= 1;
            }
        }
    }

    fn key(&mut self) -> Result<(), Malformed> {
        self.string("expected a key in double quotes")?;
        self.colon()
    }

    fn colon(&mut self) -> Result<(), Malformed> {
        self.blanks();
        if self.peek() != Some(b':') {
            return self.fail("expected `:`");
        }
        self.at += 1;
        Ok(())
    }

    /// A string's content with its escapes resolved.
    fn text_value(&mut self, otherwise: &'static str) -> Result<Cow<'a, str>, Malformed> {
        let begin = self.at;
        let has_escapes = self.string(otherwise)?;
        if has_escapes {
            let quoted = &self.text[begin..self.at];
            let text = serde_json::from_str(quoted).map_err(|_| Malformed { what: otherwise, at: begin })?;
            return Ok(Cow::Owned(text));
        }
        Ok(Cow::Borrowed(&self.text[begin + 1..self.at - 1]))
    }

    /// A string; true when it has escapes.
    fn string(&mut self, otherwise: &'static str) -> Result<bool, Malformed> {
        if self.peek() != Some(b'"') {
            return self.fail(otherwise);
        }
        self.at += 1;
        let mut has_escapes = false;
        loop {
            self.plain_text();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character in a string must be escaped"),
                None => return self.fail("the body is cut short in a string"),
            }
        }
    }

    /// Moves to the next byte of a string that is not plain: `"`, `\` or a control character.
    fn plain_text(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
        const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            // A byte is zero where the subtraction borrows into its high bit; a false mark can only stand above a
            // true one, so the lowest mark is always true.
            let zero = |x: u64| x.wrapping_sub(ONES) & !x;
            let quote = zero(word ^ (ONES * u64::from(b'"')));
            let backslash = zero(word ^ (ONES * u64::from(b'\\')));
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let marks = (quote | backslash | control) & HIGHS;
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|b| b >= 0x20 && b != b'"' && b != b'\\') {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.code_unit(self.at)? {
                0xD800..=0xDBFF => {
                    let low_at = self.at + 6;
                    let low = match self.bytes.get(low_at..low_at + 2) {
                        Some(br"\u") => self.code_unit(low_at)?,
                        _ => 0,
                    };
                    if !(0xDC00..=0xDFFF).contains(&low) {
                        return self.fail("a lone surrogate in a string");
                    }
                    self.at += 12;
                    Ok(())
                }
                0xDC00..=0xDFFF => self.fail("a lone surrogate in a string"),
                _ => {
                    self.at += 6;
                    Ok(())
                }
            },
            Some(_) => self.fail("an escape that JSON does not have"),
            None => self.fail("the body is cut short in a string"),
        }
    }

    /// The value of `\uXXXX` at `at`.
    fn code_unit(&self, at: usize) -> Result<u16, Malformed> {
        let digits = self.bytes.get(at + 2..at + 6).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            return Err(Malformed { what: "`\\u` without four hexadecimal digits", at });
        };
        Ok(digits.iter().fold(0, |unit, digit| {
            unit << 4 | u16::try_from(char::from(*digit).to_digit(16).unwrap_or(0)).unwrap_or(0)
        }))
    }

    #[inline]
    fn number(&mut self) -> Result<(), Malformed> {
        if self.peek() == Some(b'-') {
            self.at += 1;
            if self.peek() == Some(b'I') {
                return self.fail("NaN and Infinity are not JSON: found one");
            }
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|b| b.is_ascii_digit()) {
                return self.fail("a number with a leading zero");
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one digit.
    #[inline]
    fn digits(&mut self) -> Result<(), Malformed> {
        let end = after_digits(self.bytes, self.at);
        if end == self.at {
            return self.fail("expected a digit");
        }
        self.at = end;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Malformed> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return self.fail("expected `true`, `false` or `null`");
        }
        self.at += word.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { what, at: self.at })
    }
}

/// Where the digits that begin at `at` end.
#[inline]
fn after_digits(bytes: &[u8], mut at: usize) -> usize {
    // As many as most floats have are looked at without asking each time whether the text goes on.
    while let Some(window) = bytes[at..].first_chunk::<24>() {
        for word in window.as_chunks().0 {
            let count = digits_of(*word);
            at += count;
            if count < 8 {
                return at;
            }
        }
    }
    at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count()
}

/// How many digits there are at the front of these bytes.
#[inline]
fn digits_of(word: [u8; 8]) -> usize {
    const SIXES: u64 = u64::from_ne_bytes([0x06; 8]);
    const NIBBLES: u64 = u64::from_ne_bytes([0xF0; 8]);
    const THREES: u64 = u64::from_ne_bytes([0x30; 8]);
    let word = u64::from_le_bytes(word);
    // A digit's high nibble is 3, and stays 3 after adding 6. A carry can only come from a byte that is none, so the lowest
    // mark is always true.
    let others = ((word ^ THREES) | (word.wrapping_add(SIXES) ^ THREES)) & NIBBLES;
    others.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod verdicts;
