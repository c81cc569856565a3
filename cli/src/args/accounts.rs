//! Commands about who may do what: keys, users and service accounts, teams.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Create an API key; it is shown only this once
    Create(KeyCreate),
    /// List API keys, without the keys themselves
    List {
        /// Whose keys; your own unless given
        #[arg(long)]
        user: Option<String>,
    },
    /// Delete an API key, or all of a user
    Delete(KeyDelete),
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreate {
    /// Whose key; your own unless given
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// When it ends, as in `2027-01-31` or RFC 3339; the administrator's default unless given
    #[arg(long, value_name = "DATE")]
    pub(crate) expires: Option<String>,
    /// A note to recognise it by
    #[arg(long, default_value = "")]
    pub(crate) comment: String,
}

#[derive(Debug, Args)]
pub(crate) struct KeyDelete {
    /// The key's id, as `millgate key list` shows it
    #[arg(value_name = "KEY_ID", required_unless_present = "all")]
    pub(crate) key_id: Option<String>,
    /// Every key of the user, the one in use included
    #[arg(long, conflicts_with = "key_id")]
    pub(crate) all: bool,
    /// Whose key; your own unless given
    #[arg(long)]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make a user or a service account
    Create(UserCreate),
    /// List users and service accounts
    List,
    /// Delete a user with all keys; what they made goes on
    Delete {
        /// Whom
        username: String,
    },
    /// Make a user an administrator, or no more
    SetRole {
        /// Whom
        username: String,
        /// What they are to be
        role: UserRole,
    },
    /// Set a user's password: the first line of standard input
    SetPassword {
        /// Whose
        username: String,
    },
    /// Let nothing open to a user's keys any more
    Disable {
        /// Whom
        username: String,
    },
    /// Let a disabled user come in again
    Enable {
        /// Whom
        username: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UserCreate {
    /// The name; no other user gets it, not even later
    pub(crate) username: String,
    /// The name as people write it
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where mail reaches them
    #[arg(long, default_value = "")]
    pub(crate) email: String,
    /// What they are on this server
    #[arg(long, value_enum, default_value_t = UserRole::User)]
    pub(crate) role: UserRole,
    /// A program, or what models run as: it has API keys and no password
    #[arg(long, conflicts_with = "password")]
    pub(crate) service: bool,
    /// Read a password from the first line of standard input
    #[arg(long)]
    pub(crate) password: bool,
}

/// What a user is on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum UserRole {
    /// Sees own and shared projects
    User,
    /// Sees and does everything
    Administrator,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Team {
    /// Make a team without members
    Create {
        /// The name; no user or team gets it again
        team: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the teams you are in; administrators see all
    List,
    /// Show a team's members
    Show {
        /// Which
        team: String,
    },
    /// Give somebody a level in all of a team's projects, or another one
    Add {
        /// Which
        team: String,
        /// Whom
        username: String,
        /// What they may do
        #[arg(long, default_value = "contributor", value_parser = ["viewer", "operator", "contributor", "admin"])]
        permission: String,
    },
    /// Take somebody out of a team
    Remove {
        /// Which
        team: String,
        /// Whom
        username: String,
    },
    /// Delete a team that owns no project
    Delete {
        /// Which
        team: String,
    },
}
