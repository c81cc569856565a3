//! `millgate builds`: those there are, and what becomes of an old one.

use serde_json::{Value, json};

use super::{
    deploy::follow_build,
    lookup::{self, Found, text},
};
use crate::{
    args::{Builds, Global},
    client::Client,
    failure::Failure,
    terminal::{self, Steps},
};

/// Lists a model's builds, or does what is asked of one.
pub(crate) fn builds(global: &Global, args: &Builds) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let found = lookup::model(&client, &args.model)?;
    match (args.pin, args.unpin, args.rebuild) {
        (Some(number), ..) => pin(global, &client, &found, (number, true)),
        (_, Some(number), _) => pin(global, &client, &found, (number, false)),
        (.., Some(number)) => rebuild(global, &client, &found, number),
        (None, None, None) => list(global, &client, &found),
    }
}

/// Prints every build of a model, the newest last, and which of them is deployed.
fn list(global: &Global, client: &Client, found: &Found) -> Result<(), Failure> {
    let builds = found.builds(client)?;
    if global.json {
        println!("{}", json!({ "model_builds": builds }));
        return Ok(());
    }
    if builds.is_empty() {
        println!("No builds yet. `millgate deploy FILE:FUNCTION` makes one.");
        return Ok(());
    }
    let (latest, serving) = found.latest_and_serving(client)?;
    let rows: Vec<Vec<String>> = builds
        .iter()
        .map(|build| {
            let deployment = [&serving, &latest].into_iter().find(|d| d["build_id"] == build["id"]);
            vec![
                build["build_number"].to_string(),
                status(build).to_owned(),
                deployment.map_or("-", |d| text(&d["status"])).to_owned(),
                format!("{}:{}", text(&build["file_path"]), text(&build["function_name"])),
                text(&build["created_at"]).to_owned(),
                text(&build["comment"]).to_owned(),
            ]
        })
        .collect();
    println!(
        "{}",
        terminal::table(&["BUILD", "STATUS", "DEPLOYMENT", "FUNCTION", "CREATED", "COMMENT"], &rows)
    );
    Ok(())
}

/// What failed is as much of use with its files as without.
fn status(build: &Value) -> &str {
    match text(&build["status"]) {
        "built" if build["is_collected"] == true => "collected",
        "built" if build["is_pinned"] == true => "built, pinned",
        status => status,
    }
}

fn path_of(client: &Client, found: &Found, number: u64) -> Result<String, Failure> {
    let builds = found.builds(client)?;
    let build = found.numbered(&builds, number)?;
    Ok(format!("{}/builds/{}", found.path, text(&build["id"])))
}

fn pin(
    global: &Global,
    client: &Client,
    found: &Found,
    (number, is_pinned): (u64, bool),
) -> Result<(), Failure> {
    let build = client.patch(&path_of(client, found, number)?, &json!({ "is_pinned": is_pinned }))?;
    let name = found.name();
    if global.json {
        println!("{build}");
    } else if is_pinned {
        println!("Build {number} of `{name}` stays until it is unpinned.");
    } else {
        println!("Build {number} of `{name}` is collected when it is old and nothing uses it.");
    }
    Ok(())
}

fn rebuild(global: &Global, client: &Client, found: &Found, number: u64) -> Result<(), Failure> {
    let path = path_of(client, found, number)?;
    let build = client.post(&format!("{path}:rebuild"), &json!({}))?;
    let path = format!("{}/builds/{}", found.path, text(&build["id"]));
    follow_build(client, &path, &mut Steps::new())?;
    if global.json {
        println!("{}", client.get(&path)?);
        return Ok(());
    }
    let (name, new) = (found.name(), &build["build_number"]);
    println!(
        "Build {number} of `{name}` is made again, as build {new}; how they differ is above. Let it serve:\n\n  \
         millgate rollback {name} --build {new}\n"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_is_gone_or_pinned_says_so() {
        let said = |build: Value| status(&build).to_owned();
        assert_eq!(said(json!({"status": "built", "is_collected": true})), "collected");
        assert_eq!(said(json!({"status": "built", "is_pinned": true})), "built, pinned");
        assert_eq!(said(json!({"status": "build failed", "is_collected": true})), "build failed");
    }
}
