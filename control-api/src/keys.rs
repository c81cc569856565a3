//! Keys: their files (custody), API keys (signed), access keys (digest and sealed text).

pub(crate) mod access_key;
pub(crate) mod api_key;
pub(crate) mod custody;
pub(crate) mod password;

pub(crate) use custody::Custody;
pub(crate) use password::Passwords;
