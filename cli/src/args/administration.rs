//! Commands about what a server has for all models: Pythons, amounts by name, variables.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Runtimes {
    /// Add a Python of the server's host, in the place of one of the same minor version
    Add {
        /// The interpreter, as in `/usr/bin/python3.12`
        #[arg(value_name = "PATH")]
        python: PathBuf,
    },
    /// Take away a Python that was added and that no deployment runs by
    Remove {
        /// As in `3.12`
        version: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Profiles {
    /// List profiles
    List,
    /// Add a profile
    Add {
        /// The name; no other profile has it
        name: String,
        #[command(flatten)]
        amounts: ProfileAmounts,
    },
    /// Change a profile for deployments to come
    Edit {
        /// Which
        name: String,
        #[command(flatten)]
        amounts: ProfileAmounts,
    },
    /// Delete a profile; deployments that were made with it stay as they are
    Delete {
        /// Which
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProfileAmounts {
    /// Cores of each replica
    #[arg(long)]
    pub(crate) cpu: Option<f64>,
    /// Memory of each replica, in GB
    #[arg(long)]
    pub(crate) memory: Option<f64>,
    /// GPUs of each replica
    #[arg(long)]
    pub(crate) gpus: Option<u32>,
    /// What it is for
    #[arg(long)]
    pub(crate) description: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Environment {
    /// Sets a variable; a name alone takes its value from this command's own environment
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) set: Vec<String>,
    /// Takes a variable away; repeat for more
    #[arg(long, value_name = "NAME")]
    pub(crate) unset: Vec<String>,
    /// A project's variables in place of the server's: its name, or the folder that is deployed
    #[arg(long, value_name = "DIR|NAME")]
    pub(crate) project: Option<PathBuf>,
    /// Print the values, too: they may be secrets
    #[arg(long)]
    pub(crate) values: bool,
}
