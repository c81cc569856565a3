//! Addresses by prefix: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.

use std::{fmt, net::IpAddr, str::FromStr};

/// All addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It has another form.
    #[error("`{0}` is not a network like `10.0.0.0/8` or an address")]
    Form(String),
    /// There are bits behind the prefix: what is meant is not clear.
    #[error("`{text}` has bits behind its prefix: is `{network}` meant?")]
    BitsBehind {
        /// What was given.
        text: String,
        /// What it may mean.
        network: Network,
    },
}

impl Network {
    /// True for addresses of the network, an IPv4 address in IPv6 form included.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == Some(self.address)
            && address.to_canonical().is_ipv4() == self.address.is_ipv4()
    }
}

/// The first bits of an address; none where it has not so many.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::V4((u32::from(v4) & mask).into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0);
            Some(IpAddr::V6((u128::from(v6) & mask).into()))
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let form = || NetworkError::Form(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| form())?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| form())?;
        let prefix_bits = bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
        let network = Self { address: masked(address, prefix_bits).ok_or_else(form)?, prefix_bits };
        if network.address != address {
            return Err(NetworkError::BitsBehind { text: text.to_owned(), network });
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}
