//! The route table: what a call needs to know, built from one snapshot and swapped whole.
//!
//! What did not change is taken over by reference: a model's line by its id, a deployment with its connections when its
//! route is the same, the whole route when nothing about it changed. A snapshot that cannot be used changes nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use millgate_contract::{
    ids::{DeploymentId, KeyId, ModelId, ProjectId, SlotIndex, Username},
    limits::REPLICAS_CEILING_MAX,
    refusal::Refusal,
    route::{ModelRoute, RouteSnapshot, Target},
};
use ring::hmac;
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    call_log::Names,
    config::GatewayConfig,
    hex,
    keys::{KeyRing, VerifyingKeyError},
    line::{Budget, Line, LineLimits},
    metrics::{Metrics, ModelMetrics, Start},
    rates::{self, Limiter, Policy},
    slots::{
        deployment::{Deployment, Founding},
        link::Link,
        usage::Spent,
    },
    tracking::Tracking,
};

/// Why a snapshot is not routed by. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is older than the one in use.
    #[error("generation {offered} is older than {current}, which is routed by")]
    Older {
        /// The snapshot's.
        offered: u64,
        /// The table's.
        current: u64,
    },
    /// A key that API keys are verified with.
    #[error(transparent)]
    VerifyingKey(#[from] VerifyingKeyError),
    /// The key of access-key digests.
    #[error("the digest key is not 32 bytes in hexadecimal")]
    DigestKey,
    /// An access key's digest.
    #[error("the access-key digest of model `{0}` is not 32 bytes in hexadecimal")]
    Digest(String),
    /// Two models under one id or one access key.
    #[error("model `{0}` has the id or the access key of another one")]
    Duplicate(String),
    /// More slots than a deployment may have.
    #[error("model `{model}` has {slots} slots, more than {REPLICAS_CEILING_MAX}")]
    Slots {
        /// Whose.
        model: String,
        /// How many.
        slots: u16,
    },
}

type Digest = [u8; 32];

/// Everything a call needs to know.
pub(crate) struct RouteTable {
    pub(crate) generation: u64,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) revoked: HashSet<KeyId>,
    administrators: HashSet<Username>,
    digest_key: hmac::Key,
    by_digest: HashMap<Digest, Arc<Route>>,
    by_model: HashMap<ModelId, Arc<Route>>,
    callers: HashMap<ProjectId, Arc<HashSet<Username>>>,
}

/// One model.
pub(crate) struct Route {
    pub(crate) spec: ModelRoute,
    pub(crate) line: Arc<Line<Link>>,
    pub(crate) deployment: Option<Arc<Deployment>>,
    pub(crate) metrics: ModelMetrics,
    /// As events of calls name it.
    pub(crate) names: Arc<Names>,
    /// How often it may be called.
    pub(crate) rate: Option<Arc<Limiter>>,
    /// Whether its deployment's calls track metrics.
    pub(crate) tracking: Arc<Tracking>,
    callers: Arc<HashSet<Username>>,
}

/// What routes are built with.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a GatewayConfig,
    pub(crate) metrics: &'a Metrics,
    pub(crate) runtime: &'a Handle,
    pub(crate) connected_changed: &'a Arc<Notify>,
    pub(crate) waiting_bytes: &'a Arc<Budget>,
}

impl RouteTable {
    /// The model of an access key.
    pub(crate) fn by_access_key(&self, access_key: &str) -> Option<&Arc<Route>> {
        let tag = hmac::sign(&self.digest_key, access_key.as_bytes());
        let digest: Digest = tag.as_ref().try_into().ok()?;
        // A keyed digest tells a guesser nothing, so the time of the look-up may depend on it.
        self.by_digest.get(&digest)
    }

    /// The model of an id.
    pub(crate) fn by_model(&self, model: &ModelId) -> Option<&Arc<Route>> {
        self.by_model.get(model)
    }

    /// Every model.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_model.values()
    }

    /// Ends every deployment.
    pub(crate) fn retire(&self) {
        for route in self.routes() {
            route.line.close();
            route.retire();
        }
    }

    /// True when this user may call this model.
    pub(crate) fn allows(&self, user: &Username, route: &Route) -> bool {
        route.callers.contains(user) || self.administrators.contains(user)
    }
}

impl Route {
    /// Why nothing can serve this model just now.
    pub(crate) fn unavailable(&self) -> Option<Refusal> {
        match (&self.spec.target, &self.deployment) {
            (Target::Unavailable(why), _) => Some(Refusal::Unavailable(why.clone().into())),
            // What failed is in the model's log, which not every caller may read.
            (_, Some(deployment)) if deployment.shared().failure().is_some() => {
                Some(Refusal::Unavailable("the model's replicas cannot start; its log says why".into()))
            }
            _ => None,
        }
    }

    /// Whether this deployment is the one its calls go to.
    pub(crate) fn is_of(&self, deployment: &DeploymentId) -> bool {
        self.deployment_id() == Some(deployment)
    }

    fn deployment_id(&self) -> Option<&DeploymentId> {
        self.deployment.as_ref().map(|d| &d.shared().route().deployment)
    }

    fn retire(&self) {
        if let Some(deployment) = &self.deployment {
            deployment.retire();
        }
    }

    /// What its replicas have spent their time on since this was last asked.
    pub(crate) fn take_usage(&self) -> Vec<(SlotIndex, Spent)> {
        self.deployment.as_ref().map(|d| d.shared().usage().take()).unwrap_or_default()
    }

    /// How many replicas are connected that calls may go to.
    pub(crate) fn slots_serving(&self) -> u16 {
        self.deployment.as_ref().map_or(0, |d| d.shared().slots_serving())
    }

    /// How its replicas are started, once their supervisor has said so.
    pub(crate) fn start(&self) -> Option<Arc<Start>> {
        self.deployment.as_ref()?.shared().start()
    }
}

impl Builder<'_> {
    /// Checks everything that can be wrong, then takes over from `old` what stays.
    pub(crate) fn build(
        &self,
        snapshot: RouteSnapshot,
        old: Option<&RouteTable>,
    ) -> Result<RouteTable, ApplyError> {
        if let Some(old) = old.filter(|old| old.generation > snapshot.generation) {
            return Err(ApplyError::Older { offered: snapshot.generation, current: old.generation });
        }
        let digest_key: Digest =
            hex::decode(&snapshot.verification.access_key_digest_key).ok_or(ApplyError::DigestKey)?;
        let keys = match old.filter(|old| old.keys.is_for(&snapshot.verification)) {
            Some(old) => Arc::clone(&old.keys),
            None => Arc::new(KeyRing::new(&snapshot.verification, self.config.verdicts_max)?),
        };
        let digests = check_models(&snapshot.models)?;
        let mut table = RouteTable {
            generation: snapshot.generation,
            keys,
            revoked: snapshot.revoked.into_iter().map(|r| r.key).collect(),
            administrators: snapshot.administrators.into_iter().collect(),
            digest_key: hmac::Key::new(hmac::HMAC_SHA256, &digest_key),
            by_digest: HashMap::with_capacity(digests.len()),
            by_model: HashMap::with_capacity(digests.len()),
            callers: HashMap::with_capacity(snapshot.projects.len()),
        };
        for project in snapshot.projects {
            let callers: HashSet<Username> = project.callers.into_iter().collect();
            let same = old.and_then(|old| old.callers.get(&project.project)).filter(|c| ***c == callers);
            table.callers.insert(project.project, same.cloned().unwrap_or_else(|| Arc::new(callers)));
        }
        for (spec, digest) in snapshot.models.into_iter().zip(digests) {
            let callers = table.callers.get(&spec.project).cloned().unwrap_or_default();
            let old = old.and_then(|old| old.by_model(&spec.model));
            let route = self.route(spec, callers, old);
            table.by_digest.insert(digest, Arc::clone(&route));
            table.by_model.insert(route.spec.model.clone(), route);
        }
        Ok(table)
    }

    fn route(
        &self,
        spec: ModelRoute,
        callers: Arc<HashSet<Username>>,
        old: Option<&Arc<Route>>,
    ) -> Arc<Route> {
        if let Some(old) = old.filter(|old| old.spec == spec && Arc::ptr_eq(&old.callers, &callers)) {
            return Arc::clone(old);
        }
        let limits =
            LineLimits { calls_max: self.config.line_calls_max, bytes_max: self.config.line_bytes_max };
        let line = old
            .map_or_else(|| Line::new(limits, Arc::clone(self.waiting_bytes)), |old| Arc::clone(&old.line));
        let serving = old.and_then(|old| old.deployment.clone());
        let deployment = match &spec.target {
            Target::Unavailable(_) => None,
            Target::Deployment(target) => Some(match serving {
                Some(serving) if serving.shared().route() == target => serving,
                predecessor => Deployment::found(
                    Founding {
                        route: target.clone(),
                        gateway: self.config.name.clone(),
                        line: Arc::clone(&line),
                        connected_changed: Arc::clone(self.connected_changed),
                        predecessor,
                    },
                    self.runtime,
                ),
            }),
        };
        if deployment.is_some() {
            line.open();
        }
        let metrics = self.metrics.of(&spec);
        let rate = self.rate(&spec, old);
        let names = Names::of(&spec);
        let known = old.filter(|old| match &spec.target {
            Target::Deployment(target) => old.is_of(&target.deployment),
            Target::Unavailable(_) => false,
        });
        let tracking = known.map_or_else(Arc::default, |old| Arc::clone(&old.tracking));
        Arc::new(Route { spec, line, deployment, metrics, names, rate, tracking, callers })
    }

    /// A model's own rate or the gateway's, and what of it is used already.
    fn rate(&self, spec: &ModelRoute, old: Option<&Arc<Route>>) -> Option<Arc<Limiter>> {
        let rate = spec.rate.or(self.config.model_rate)?;
        let kept = old.and_then(|old| old.rate.clone()).filter(|kept| kept.rate() == rate);
        Some(kept.unwrap_or_else(|| Arc::new(Limiter::new(Policy { name: rates::MODEL, rate }))))
    }

    /// Ends what the new table has no use for.
    pub(crate) fn part(&self, old: &RouteTable, new: &RouteTable) {
        for before in old.routes() {
            let Some(after) = new.by_model(&before.spec.model) else {
                before.line.close();
                before.retire();
                self.metrics.forget_model(&before.spec);
                continue;
            };
            if after.deployment.is_none() {
                after.line.close();
                before.retire();
            }
            if after.spec.name != before.spec.name {
                self.metrics.forget_model(&before.spec);
            } else if after.deployment_id() != before.deployment_id() {
                self.metrics.forget_deployment(&before.spec);
            }
        }
    }
}

/// What could be wrong with a model, before anything is founded. The digests, in order.
fn check_models(models: &[ModelRoute]) -> Result<Vec<Digest>, ApplyError> {
    let mut ids = HashSet::with_capacity(models.len());
    let mut seen = HashSet::with_capacity(models.len());
    let mut digests = Vec::with_capacity(models.len());
    for model in models {
        let id = || model.model.as_str().to_owned();
        let digest: Digest = hex::decode(&model.access_key_digest).ok_or_else(|| ApplyError::Digest(id()))?;
        if !ids.insert(&model.model) || !seen.insert(digest) {
            return Err(ApplyError::Duplicate(id()));
        }
        if let Target::Deployment(target) = &model.target
            && target.slots > REPLICAS_CEILING_MAX
        {
            return Err(ApplyError::Slots { model: id(), slots: target.slots });
        }
        digests.push(digest);
    }
    Ok(digests)
}
