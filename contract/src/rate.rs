//! How often something may be done, as an operator writes it: `600/60s` is 600 calls in each minute.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

/// So many calls in a window. All of them may come at once; they are replenished evenly over the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Calls in a window.
    pub calls: NonZeroU32,
    /// Seconds of a window.
    pub window_s: NonZeroU32,
}

/// A text is not a [`Rate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate such as `600/60s` (calls, and the seconds they are counted in)")]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let parse = || {
            let (calls, window) = text.trim().split_once('/')?;
            let window_s = window.strip_suffix('s')?.parse().ok()?;
            Some(Self { calls: calls.parse().ok()?, window_s })
        };
        parse().ok_or_else(|| RateError(text.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}s", self.calls, self.window_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_as_it_is_written() {
        assert_eq!("600/60s".parse::<Rate>().unwrap().to_string(), "600/60s");
        for wrong in ["", "600", "600/60", "0/60s", "600/0s", "-1/60s", "600/60s/", "x/1s", "99999999999/1s"]
        {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
