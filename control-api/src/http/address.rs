//! Where a request comes from.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, request::Parts},
};

/// An extension of a request, put there by whoever accepted its connection; the unspecified address when nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerAddress(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for CallerAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl CallerAddress {
    /// Who said so, or who is connected.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let connected =
            || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| Self(address.ip()));
        extensions.get().copied().or_else(connected).unwrap_or(Self(IpAddr::from([0, 0, 0, 0])))
    }
}
