//! `millgate scale`: the same build with another number of replicas.

use super::{
    lookup::{self, text},
    rollout::{Plan, roll_out},
};
use crate::{
    args::{Global, Scale},
    client::Client,
    failure::Failure,
};

/// Deploys what is deployed with other replicas, without a gap.
pub(crate) fn scale(global: &Global, args: &Scale) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, &args.model)?;
    let (current, _) = found.serving(&client)?;
    let plan = Plan {
        build: text(&current["build_id"]),
        amounts: &current,
        behaviour: &current,
        replicas: args.replicas.into(),
    };
    let deployment = roll_out(&client, &found, &plan)?;
    if global.json {
        println!("{deployment}");
    } else {
        println!(
            "Model `{}` is served by {} replicas (before: {}).",
            found.name(),
            deployment["replicas"],
            current["replicas"]
        );
    }
    Ok(())
}
