//! What the store holds, as values. Statuses are types here and words in the database and the API.

use millgate_contract::ids::{BuildId, DeploymentId, KeyId, ModelId, ProjectId, Username};

use crate::policy::ServingPolicy;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// The word for it.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The reverse of [`Self::as_str`].
            pub(crate) fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// The life of a build.
    BuildStatus {
        /// Asked for.
        Pending = "pending",
        /// In line.
        Queued = "queued",
        /// Being built.
        Building = "building",
        /// Sealed, and being tried: by the start of a deployment that waits for it, or alone.
        Pushing = "pushing",
        /// Ready to be deployed.
        Built = "built",
        /// Over, without success; the reason says why.
        Failed = "build failed",
    }
}

words! {
    /// The life of a deployment.
    DeploymentStatus {
        /// Waits for its build.
        Pending = "pending",
        /// Its processes start.
        Deploying = "deploying",
        /// It serves.
        Deployed = "deployed",
        /// Its processes end.
        Stopping = "stopping",
        /// Over.
        Stopped = "stopped",
        /// Could not start.
        Failed = "failed",
    }
}

words! {
    /// What a collaborator may do; each level holds the ones before it.
    Level {
        /// Sees.
        Viewer = "viewer",
        /// Stops and restarts.
        Operator = "operator",
        /// Changes.
        Contributor = "contributor",
        /// Deletes, and decides who else may.
        Admin = "admin",
    }
}

words! {
    /// What a user is on this server.
    UserRole {
        /// Sees own and shared projects.
        User = "user",
        /// Sees and does everything.
        Administrator = "administrator",
    }
}

words! {
    /// What a user is.
    UserKind {
        /// Somebody.
        Person = "person",
        /// A program, or what models run as.
        Service = "service",
        /// Owns projects in the place of its members.
        Team = "team",
    }
}

words! {
    /// Who sees a project without being its collaborator.
    Visibility {
        /// Everybody on this server.
        Public = "public",
        /// Everybody on this server.
        Organization = "organization",
        /// Nobody.
        Private = "private",
    }
}

impl BuildStatus {
    /// Nothing more will happen to it.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Built | Self::Failed)
    }
}

impl DeploymentStatus {
    /// Nothing more will happen to it by itself.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

/// A user.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) username: Username,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) role: UserRole,
    pub(crate) kind: UserKind,
    /// May not come in; what they made goes on.
    pub(crate) is_disabled: bool,
    /// '' is none.
    pub(crate) password_hash: String,
    pub(crate) created_us: i64,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { username, role, kind, is_disabled, .. } = self;
        write!(f, "User({username}, {}, {}, disabled {is_disabled})", role.as_str(), kind.as_str())
    }
}

/// A project.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) id: ProjectId,
    pub(crate) number: i64,
    pub(crate) name: String,
    pub(crate) owner: Username,
    pub(crate) creator: Username,
    pub(crate) description: String,
    pub(crate) visibility: Visibility,
    pub(crate) default_engine_type: String,
    pub(crate) environment: String,
    pub(crate) shared_memory_limit: i64,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
}

/// A model.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) id: ModelId,
    pub(crate) number: i64,
    pub(crate) project_id: ProjectId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) creator: Username,
    pub(crate) visibility: Visibility,
    pub(crate) auth_enabled: bool,
    pub(crate) run_as: String,
    pub(crate) registered_model_id: String,
    pub(crate) accelerator_label_id: i64,
    pub(crate) access_key_sealed: String,
    pub(crate) resources: Amounts,
    /// What its deployments get where they say nothing.
    pub(crate) policy: ServingPolicy,
    /// The deployment its calls go to, or ''.
    pub(crate) routed: String,
    pub(crate) is_deleting: bool,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
}

/// What a deployment has, or a model's deployments have by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_millicores: i64,
    pub(crate) memory_mb: i64,
    pub(crate) nvidia_gpus: i64,
    pub(crate) replicas: i64,
}

impl Default for Amounts {
    fn default() -> Self {
        Self { cpu_millicores: 1_000, memory_mb: 2_048, nvidia_gpus: 0, replicas: 1 }
    }
}

/// Amounts by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceProfile {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) cpu_millicores: i64,
    pub(crate) memory_mb: i64,
    pub(crate) nvidia_gpus: i64,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
}

/// What a deployment gets where it says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) amounts: Amounts,
    pub(crate) policy: ServingPolicy,
}

impl Model {
    /// What its deployments get where they say nothing.
    pub(crate) fn defaults(&self) -> Defaults {
        Defaults { amounts: self.resources, policy: self.policy.clone() }
    }
}

/// A build.
#[derive(Debug, Clone)]
#[allow(clippy::struct_field_names, reason = "the names are those of API v2")]
pub(crate) struct Build {
    pub(crate) id: BuildId,
    /// Across the server: names its uid and its run directory.
    pub(crate) number: i64,
    /// From 1 in its model.
    pub(crate) build_number: i64,
    pub(crate) model_id: ModelId,
    pub(crate) creator: Username,
    pub(crate) comment: String,
    pub(crate) file_path: String,
    pub(crate) function_name: String,
    pub(crate) kernel: String,
    pub(crate) runtime_identifier: String,
    /// JSON list.
    pub(crate) runtime_addon_identifiers: String,
    pub(crate) model_root_dir: String,
    pub(crate) build_script_path: String,
    /// JSON list of patterns: what belongs to it though it is ignored.
    pub(crate) include: String,
    /// JSON, or ''.
    pub(crate) example_request: String,
    /// JSON, or ''.
    pub(crate) example_response: String,
    /// JSON list.
    pub(crate) warnings: String,
    pub(crate) status: BuildStatus,
    pub(crate) reason: String,
    pub(crate) source_hash: String,
    pub(crate) build_hash: String,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
    pub(crate) built_us: i64,
    /// Stays whatever its age.
    pub(crate) is_pinned: bool,
    /// When its files went; 0 where they are there.
    pub(crate) collected_us: i64,
    /// The build it is made from again, or ''.
    pub(crate) rebuilt_from: String,
}

/// A deployment.
#[derive(Debug, Clone)]
pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    /// Across the server: names its uid and its run directory.
    pub(crate) number: i64,
    /// Grows with each creation and restart: the latest ready one of a model is the one its calls go to.
    pub(crate) sequence: i64,
    pub(crate) build_id: BuildId,
    pub(crate) model_id: ModelId,
    pub(crate) deployer: Username,
    pub(crate) amounts: Amounts,
    /// The profile that its amounts are of, or ''.
    pub(crate) resource_profile: String,
    pub(crate) policy: ServingPolicy,
    /// JSON object of its own variables.
    pub(crate) environment: String,
    pub(crate) status: DeploymentStatus,
    pub(crate) reason: String,
    pub(crate) is_stop_requested: bool,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
    pub(crate) stopped_us: i64,
}

/// An API key: what is kept of it, never the key.
#[derive(Debug, Clone)]
#[allow(clippy::struct_field_names, reason = "the names are those of API v2")]
pub(crate) struct Key {
    pub(crate) key_id: KeyId,
    pub(crate) username: Username,
    pub(crate) comments: String,
    /// JSON list.
    pub(crate) audiences: String,
    pub(crate) created_us: i64,
    pub(crate) expires_s: i64,
    pub(crate) deleted_us: i64,
}
