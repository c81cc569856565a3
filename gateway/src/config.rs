//! What an operator may set about a gateway. Read once by whoever starts it; nothing here changes afterwards.

use std::{
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use millgate_contract::{ids::ModelId, limits, rate::Rate};

use crate::{
    call_log::CallLogConfig, caller_address::Proxies, gate::BodyLimits, openid::OpenIdConfig,
    spans::SpansConfig, spool::Spool, tls::Tls,
};

const FAILED_AUTHENTICATION_RATE: Rate = rate(100, 60);
/// About a tenth of one processor.
const VERIFICATION_RATE: Rate = rate(1_000, 1);

const fn rate(calls: u32, window_s: u32) -> Rate {
    let (Some(calls), Some(window_s)) = (NonZeroU32::new(calls), NonZeroU32::new(window_s)) else {
        panic!("a rate has calls and a window")
    };
    Rate { calls, window_s }
}

/// Everything a gateway is told at its start. [`Default`] is what production runs with.
#[derive(Clone)]
pub struct GatewayConfig {
    /// The gateway's own name for itself, told to replicas, supervisors and the control API.
    pub name: String,
    /// Where the last good route snapshot is kept (0600); without one a restart waits for the control API.
    pub snapshot_file: Option<PathBuf>,
    /// The model that every call goes to, whatever access key it has or has not (`millgate run`).
    pub default_model: Option<ModelId>,
    /// Calls are answered here. Where they are not, their paths are like any other.
    pub serves_calls: bool,
    /// Which other origins may call models from a page.
    pub cors_origins: CorsOrigins,
    /// Milliseconds a call waits for a replica before `429 model.busy`.
    pub wait_ms_max: u64,
    /// Calls in the line of one model.
    pub line_calls_max: usize,
    /// Body bytes in the line of one model.
    pub line_bytes_max: usize,
    /// Body bytes in all lines together.
    pub waiting_bytes_max: usize,
    /// How often one API key may call; without one, as often as it likes.
    pub key_rate: Option<Rate>,
    /// How often a model may be called that has no rate of its own; without one, as often as callers like.
    pub model_rate: Option<Rate>,
    /// How often an address may come with keys that are not known to be good before its failures are answered with
    /// `429`. A good key is never refused for it.
    pub failed_authentication_rate: Option<Rate>,
    /// Signature checks for addresses that are over that rate, all together.
    pub verification_rate: Rate,
    /// Keys, and addresses, that are counted one by one; beyond that many they share a count.
    pub rate_keys_max: usize,
    /// An OpenID issuer whose tokens are as good as API keys of its users.
    pub openid: Option<OpenIdConfig>,
    /// What callers are shown of TLS; without it they speak plainly.
    pub tls: Option<Tls>,
    /// Whose word is taken for where a caller is.
    pub proxies: Proxies,
    /// Connections at one time; more wait in the listener's queue.
    pub connections_max: usize,
    /// Connections of one address at one time; more are closed unread. Less than there are places, so that no address
    /// takes them all, and not much less, for of a proxy in front there is one address.
    pub connections_per_address_max: usize,
    /// Milliseconds from a connection's first moment to its first byte, a handshake of TLS included, and from a request's first byte to its whole
    /// head.
    pub head_ms_max: u64,
    /// Milliseconds from an answer to the first byte of the next request.
    pub keep_alive_ms_max: u64,
    /// Milliseconds in which no byte of a call's body arrives.
    pub body_idle_ms_max: u64,
    /// Milliseconds for the whole body of a call.
    pub body_ms_max: u64,
    /// Milliseconds in which no byte of any other body arrives.
    pub other_body_idle_ms_max: u64,
    /// Bytes a second that a body must bring on the average, after the milliseconds it may bring none.
    pub body_bytes_per_s_min: u64,
    /// Milliseconds in which a caller takes no byte of its answer.
    pub write_idle_ms_max: u64,
    /// Milliseconds for which connections are still accepted at the end, `/ready` saying no already.
    pub unready_ms: u64,
    /// Milliseconds for which kept-alive connections may bring one more request when another process has taken over.
    pub farewell_ms_max: u64,
    /// Milliseconds that running calls are given when the gateway ends.
    pub drain_ms_max: u64,
    /// Milliseconds between `Cancel` and the word to the supervisor, for models that cancel on hang-up.
    pub cancel_grace_ms: u64,
    /// Microseconds for which a replica that has answered looks for its next call awake, while calls are few: at most
    /// [`limits::BUSY_POLL_US_MAX`]. 0: it sleeps at once.
    pub busy_poll_us: u16,
    /// API keys whose signature is remembered as good.
    pub verdicts_max: usize,
    /// Where one event for each call is kept; without one, nowhere.
    pub call_log: Option<CallLogConfig>,
    /// Where spans of calls are sent; without it, nowhere.
    pub spans: Option<SpansConfig>,
    /// API keys whose calls are counted one by one on the page of figures; the calls of the others are counted together.
    pub key_series_max: usize,
    /// Where tracked metrics are before the caller is answered; without one they are dropped.
    pub spool: Option<Spool>,
    /// How many builds are damaged, where the control API of this process knows.
    pub damaged_builds: Option<Arc<AtomicU64>>,
}

/// Which other origins may call models from a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// None: the default.
    #[default]
    Nowhere,
    /// These, compared as they are written in `Origin`.
    Listed(Vec<String>),
    /// Any.
    Anywhere,
}

impl GatewayConfig {
    /// What a body that is not a call's is held to.
    pub(crate) fn other_body_limits(&self) -> BodyLimits {
        BodyLimits {
            idle_max: Duration::from_millis(self.other_body_idle_ms_max),
            bytes_per_s_min: self.body_bytes_per_s_min,
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            name: "gateway".to_owned(),
            snapshot_file: None,
            default_model: None,
            serves_calls: true,
            cors_origins: CorsOrigins::default(),
            wait_ms_max: limits::WAIT_MS_MAX,
            line_calls_max: limits::LINE_CALLS_MAX,
            line_bytes_max: limits::LINE_BYTES_MAX,
            waiting_bytes_max: 1024 * 1024 * 1024,
            key_rate: None,
            model_rate: None,
            failed_authentication_rate: Some(FAILED_AUTHENTICATION_RATE),
            verification_rate: VERIFICATION_RATE,
            rate_keys_max: 20_000,
            openid: None,
            tls: None,
            proxies: Proxies::default(),
            connections_max: 10_000,
            connections_per_address_max: 8_000,
            head_ms_max: 10_000,
            keep_alive_ms_max: 75_000,
            body_idle_ms_max: 10_000,
            body_ms_max: 30_000,
            other_body_idle_ms_max: 30_000,
            body_bytes_per_s_min: 1_000,
            write_idle_ms_max: 30_000,
            unready_ms: 0,
            farewell_ms_max: 10_000,
            drain_ms_max: 30_000,
            cancel_grace_ms: 2_000,
            busy_poll_us: 100,
            verdicts_max: 10_000,
            call_log: None,
            spans: None,
            key_series_max: 100,
            spool: None,
            damaged_builds: None,
        }
    }
}
