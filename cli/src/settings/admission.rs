//! Who may call, and how often: the part of the settings that gateways run by.

use std::{num::NonZeroUsize, ops::RangeInclusive, path::PathBuf, time::Duration};

use millgate_contract::rate::Rate;
use millgate_gateway::{GatewayConfig, KeySetSource, KeySetUrl, OpenIdConfig, TokenReader};
use serde::Deserialize;

use crate::failure::Failure;

/// The claim that names the user where the file says nothing.
const USER_CLAIM: &str = "preferred_username";
/// How often an issuer is asked for its keys where the file says nothing.
const KEY_SET_REFRESH_S: u64 = 3_600;
const KEY_SET_REFRESHES_S: RangeInclusive<u64> = 10..=86_400;

/// What the file says of it. Rates are `600/60s`: calls, and the seconds they are counted in.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdmissionFile {
    key_rate: Option<String>,
    model_rate: Option<String>,
    failed_authentication_rate: Option<String>,
    /// Calls in the line of one model; what comes beyond is answered with 429 at once.
    line_calls_max: Option<NonZeroUsize>,
    openid: Option<OpenIdFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenIdFile {
    issuer: String,
    audience: String,
    key_set_file: Option<PathBuf>,
    key_set_url: Option<String>,
    key_set_refresh_s: Option<u64>,
    ca_file: Option<PathBuf>,
    user_claim: Option<String>,
}

impl OpenIdFile {
    fn check(self) -> Result<OpenIdConfig, Failure> {
        let keys = match (self.key_set_file, self.key_set_url) {
            (Some(file), None) => KeySetSource::File(file),
            (None, Some(url)) => {
                let refresh_s = self.key_set_refresh_s.unwrap_or(KEY_SET_REFRESH_S);
                if !KEY_SET_REFRESHES_S.contains(&refresh_s) {
                    let (least, most) = (KEY_SET_REFRESHES_S.start(), KEY_SET_REFRESHES_S.end());
                    return Err(Failure::usage(format!("`key_set_refresh_s` is {refresh_s}"))
                        .hint(format!("give a number from {least} to {most}")));
                }
                let refresh = Duration::from_secs(refresh_s);
                KeySetSource::Url(KeySetUrl { url, refresh, ca_file: self.ca_file })
            }
            _ => {
                return Err(Failure::usage("`[admission.openid]` needs `key_set_url` or `key_set_file`")
                    .hint("give one of them: the issuer's `jwks_uri`, or a file with what is there"));
            }
        };
        let openid = OpenIdConfig {
            issuer: self.issuer,
            audience: self.audience,
            keys,
            user_claim: self.user_claim.unwrap_or_else(|| USER_CLAIM.to_owned()),
        };
        openid.check().map_err(|error| {
            Failure::usage(error.to_string()).hint(
                "the issuer's `jwks_uri` is an `https` address; `key_set_file` is what is there, in a file",
            )
        })?;
        Ok(openid)
    }
}

/// What gateways run by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    key_rate: Option<Rate>,
    model_rate: Option<Rate>,
    failed_authentication_rate: Option<Rate>,
    line_calls_max: Option<NonZeroUsize>,
    openid: Option<OpenIdConfig>,
}

impl AdmissionFile {
    /// Checks everything that can be wrong, the issuer's keys included.
    pub(super) fn check(self) -> Result<Admission, Failure> {
        let openid = self.openid.map(OpenIdFile::check).transpose()?;
        Ok(Admission {
            key_rate: rate("key_rate", self.key_rate)?,
            model_rate: rate("model_rate", self.model_rate)?,
            failed_authentication_rate: rate("failed_authentication_rate", self.failed_authentication_rate)?,
            line_calls_max: self.line_calls_max,
            openid,
        })
    }
}

impl Admission {
    /// Who reads an OpenID issuer's tokens for the control API, if there is one.
    pub(crate) fn token_reader(&self) -> Option<millgate_control_api::TokenReader> {
        let config = self.openid.clone()?;
        let reader = TokenReader::new(config, &tokio::runtime::Handle::current());
        Some(millgate_control_api::TokenReader::new(move |token| reader.user(token)))
    }

    /// A gateway's configuration with these.
    pub(crate) fn apply(&self, config: GatewayConfig) -> GatewayConfig {
        GatewayConfig {
            key_rate: self.key_rate.or(config.key_rate),
            model_rate: self.model_rate.or(config.model_rate),
            failed_authentication_rate: self.failed_authentication_rate.or(config.failed_authentication_rate),
            line_calls_max: self.line_calls_max.map_or(config.line_calls_max, NonZeroUsize::get),
            openid: self.openid.clone().or(config.openid),
            ..config
        }
    }
}

fn rate(name: &str, text: Option<String>) -> Result<Option<Rate>, Failure> {
    let parsed = text.map(|text| text.parse::<Rate>()).transpose();
    parsed.map_err(|error| {
        Failure::usage(format!("`{name}`: {error}")).hint("leave it out where nothing is to be bounded")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Admission, Failure> {
        toml::from_str::<AdmissionFile>(text).unwrap().check()
    }

    #[test]
    fn rates_are_read_and_what_is_left_out_stays_the_gateway_s() {
        let admission = read("key_rate = '600/60s'").unwrap();
        let config = admission.apply(GatewayConfig::default());
        assert_eq!(config.key_rate.map(|rate| rate.to_string()).as_deref(), Some("600/60s"));
        assert_eq!(config.model_rate, None);
        assert_eq!(config.failed_authentication_rate, GatewayConfig::default().failed_authentication_rate);
    }

    #[test]
    fn a_line_may_be_shorter_and_not_of_no_calls() {
        let config = read("line_calls_max = 16").unwrap().apply(GatewayConfig::default());
        assert_eq!(config.line_calls_max, 16);
        let default = read("").unwrap().apply(GatewayConfig::default());
        assert_eq!(default.line_calls_max, GatewayConfig::default().line_calls_max);
        assert!(toml::from_str::<AdmissionFile>("line_calls_max = 0").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        let said = read("model_rate = 'fast'").unwrap_err().to_string();
        assert!(said.contains("`model_rate`: `fast`") && said.contains("hint:"), "{said}");
        let openid = "[openid]\nissuer = 'https://id'\naudience = 'm'\nkey_set_file = '/nowhere/jwks.json'\n";
        let said = read(openid).unwrap_err().to_string();
        assert!(said.contains("/nowhere/jwks.json") && said.contains("hint:"), "{said}");
        let issuer = "[openid]\nissuer = 'https://id'\naudience = 'm'\n";
        for (more, what) in [
            ("", "`key_set_url` or `key_set_file`"),
            ("key_set_url = 'https://id/keys'\nkey_set_refresh_s = 1\n", "`key_set_refresh_s` is 1"),
            ("key_set_url = 'http://id.example/keys'\n", "http://id.example/keys"),
            ("key_set_url = 'https://id/keys'\nca_file = '/nowhere/ca.pem'\n", "/nowhere/ca.pem"),
        ] {
            let said = read(&format!("{issuer}{more}")).unwrap_err().to_string();
            assert!(said.contains(what) && said.contains("hint:"), "{said}");
        }
    }
}
