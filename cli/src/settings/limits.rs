//! What a gateway holds its callers and itself to: the section `[limits]`. Each limit has a range outside of which it is
//! a slip of the hand; what is left out is the gateway's own.

use std::{fmt::Display, ops::RangeInclusive};

use millgate_contract::limits::{BUSY_POLL_US_MAX, WAIT_MS_MAX};
use millgate_gateway::GatewayConfig;
use serde::Deserialize;

use crate::failure::Failure;

/// A tenth of a second to an hour.
const MS: RangeInclusive<u64> = 100..=3_600_000;
/// The same, or not at all.
const MS_OR_NONE: RangeInclusive<u64> = 0..=3_600_000;
const COUNT: RangeInclusive<usize> = 1..=10_000_000;
/// A kilobyte to a terabyte.
const BYTES: RangeInclusive<usize> = 1_024..=1 << 40;

/// What the file says of it, by the names that the gateway has for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    wait_ms_max: Option<u64>,
    line_bytes_max: Option<usize>,
    waiting_bytes_max: Option<usize>,
    rate_keys_max: Option<usize>,
    verdicts_max: Option<usize>,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    head_ms_max: Option<u64>,
    keep_alive_ms_max: Option<u64>,
    body_idle_ms_max: Option<u64>,
    body_ms_max: Option<u64>,
    other_body_idle_ms_max: Option<u64>,
    body_bytes_per_s_min: Option<u64>,
    write_idle_ms_max: Option<u64>,
    cancel_grace_ms: Option<u64>,
    busy_poll_us: Option<u16>,
    unready_ms: Option<u64>,
    farewell_ms_max: Option<u64>,
    drain_ms_max: Option<u64>,
}

impl Limits {
    /// Says what is outside its range, if anything is.
    pub(super) fn check(self) -> Result<Self, Failure> {
        within("wait_ms_max", self.wait_ms_max, 1..=WAIT_MS_MAX)?;
        within("line_bytes_max", self.line_bytes_max, BYTES)?;
        within("waiting_bytes_max", self.waiting_bytes_max, BYTES)?;
        within("rate_keys_max", self.rate_keys_max, COUNT)?;
        within("verdicts_max", self.verdicts_max, COUNT)?;
        within("connections_max", self.connections_max, COUNT)?;
        within("connections_per_address_max", self.connections_per_address_max, COUNT)?;
        within("head_ms_max", self.head_ms_max, MS)?;
        within("keep_alive_ms_max", self.keep_alive_ms_max, MS)?;
        within("body_idle_ms_max", self.body_idle_ms_max, MS)?;
        within("body_ms_max", self.body_ms_max, MS)?;
        within("other_body_idle_ms_max", self.other_body_idle_ms_max, MS)?;
        within("body_bytes_per_s_min", self.body_bytes_per_s_min, 0..=1_000_000)?;
        within("write_idle_ms_max", self.write_idle_ms_max, MS)?;
        within("cancel_grace_ms", self.cancel_grace_ms, MS_OR_NONE)?;
        within("busy_poll_us", self.busy_poll_us, 0..=BUSY_POLL_US_MAX)?;
        within("unready_ms", self.unready_ms, MS_OR_NONE)?;
        within("farewell_ms_max", self.farewell_ms_max, MS_OR_NONE)?;
        within("drain_ms_max", self.drain_ms_max, MS_OR_NONE)?;
        Ok(self)
    }

    /// A gateway's configuration with these.
    pub(crate) fn apply(&self, config: GatewayConfig) -> GatewayConfig {
        GatewayConfig {
            wait_ms_max: self.wait_ms_max.unwrap_or(config.wait_ms_max),
            line_bytes_max: self.line_bytes_max.unwrap_or(config.line_bytes_max),
            waiting_bytes_max: self.waiting_bytes_max.unwrap_or(config.waiting_bytes_max),
            rate_keys_max: self.rate_keys_max.unwrap_or(config.rate_keys_max),
            verdicts_max: self.verdicts_max.unwrap_or(config.verdicts_max),
            connections_max: self.connections_max.unwrap_or(config.connections_max),
            connections_per_address_max: self
                .connections_per_address_max
                .unwrap_or(config.connections_per_address_max),
            head_ms_max: self.head_ms_max.unwrap_or(config.head_ms_max),
            keep_alive_ms_max: self.keep_alive_ms_max.unwrap_or(config.keep_alive_ms_max),
            body_idle_ms_max: self.body_idle_ms_max.unwrap_or(config.body_idle_ms_max),
            body_ms_max: self.body_ms_max.unwrap_or(config.body_ms_max),
            other_body_idle_ms_max: self.other_body_idle_ms_max.unwrap_or(config.other_body_idle_ms_max),
            body_bytes_per_s_min: self.body_bytes_per_s_min.unwrap_or(config.body_bytes_per_s_min),
            write_idle_ms_max: self.write_idle_ms_max.unwrap_or(config.write_idle_ms_max),
            cancel_grace_ms: self.cancel_grace_ms.unwrap_or(config.cancel_grace_ms),
            busy_poll_us: self.busy_poll_us.unwrap_or(config.busy_poll_us),
            unready_ms: self.unready_ms.unwrap_or(config.unready_ms),
            farewell_ms_max: self.farewell_ms_max.unwrap_or(config.farewell_ms_max),
            drain_ms_max: self.drain_ms_max.unwrap_or(config.drain_ms_max),
            ..config
        }
    }
}

fn within<T: PartialOrd + Display>(
    name: &str,
    given: Option<T>,
    range: RangeInclusive<T>,
) -> Result<(), Failure> {
    match given {
        Some(value) if !range.contains(&value) => Err(Failure::usage(format!("`{name}` is {value}"))
            .hint(format!("give a number from {} to {}", range.start(), range.end()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Limits, Failure> {
        toml::from_str::<Limits>(text).unwrap().check()
    }

    #[test]
    fn a_limit_is_the_gateway_s_and_what_is_left_out_stays_as_it_is() {
        let config =
            read("head_ms_max = 500\nconnections_max = 7\n").unwrap().apply(GatewayConfig::default());
        assert_eq!((config.head_ms_max, config.connections_max), (500, 7));
        assert_eq!(config.drain_ms_max, GatewayConfig::default().drain_ms_max);
    }

    #[test]
    fn a_limit_outside_its_range_is_named_with_the_range() {
        for text in ["head_ms_max = 0", "wait_ms_max = 30001", "connections_max = 0", "line_bytes_max = 1"] {
            let said = read(text).unwrap_err().to_string();
            let (name, value) = text.split_once(" = ").unwrap();
            assert!(
                said.contains(&format!("`{name}` is {value}")) && said.contains("hint: give a number"),
                "{said}"
            );
        }
    }
}
