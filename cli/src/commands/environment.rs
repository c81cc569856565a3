//! `millgate environment`: the variables of all models, or of a project's. Values may be secrets, so they are printed only
//! when that is asked for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::lookup::text;
use crate::{
    args::{Environment, Global},
    client::Client,
    failure::{Context, Failure},
};

const PATH: &str = "/api/v2/environment";

/// Shows the variables, or changes some of them.
pub(crate) fn environment(global: &Global, args: &Environment) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let set = args.set.iter().map(|word| assignment(word)).collect::<Result<Vec<_>, _>>()?;
    let path = match &args.project {
        Some(named) => project(&client, named)?,
        None => PATH.to_owned(),
    };
    let mut variables = read(&client.get(&path)?)?;
    if !set.is_empty() || !args.unset.is_empty() {
        for name in &args.unset {
            if variables.remove(name).is_none() {
                return Err(Failure::new(format!("there is no variable `{name}`"))
                    .hint("`millgate environment` shows those there are"));
            }
        }
        variables.extend(set);
        let body = json!({ "environment": variables });
        let answer =
            if args.project.is_some() { client.patch(&path, &body) } else { client.put(&path, &body) };
        variables = read(&answer?)?;
    }
    print(global, args, &variables);
    Ok(())
}

/// `NAME=VALUE`; `NAME` alone takes the value from this command's own environment, where no other process reads it.
fn assignment(word: &str) -> Result<(String, Value), Failure> {
    match word.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("`{word}` names no variable")).hint("give `NAME=VALUE`")),
        Some((name, value)) => Ok((name.to_owned(), json!(value))),
        None => match std::env::var(word) {
            Ok(value) => Ok((word.to_owned(), json!(value))),
            Err(_) => Err(Failure::usage(format!("`{word}` has no value here"))
                .hint("give `NAME=VALUE`, or set it in the environment of this command")),
        },
    }
}

/// The path of the project of this name, or of the one that a folder is deployed as.
fn project(client: &Client, named: &Path) -> Result<String, Failure> {
    let shown = named.display().to_string();
    let folder = named.canonicalize().ok().and_then(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
    let all = client.list("/api/v2/projects", "projects", None)?;
    let called = |name: &str| -> Vec<&Value> { all.iter().filter(|p| text(&p["name"]) == name).collect() };
    let mut found = called(&shown);
    if let (true, Some(folder)) = (found.is_empty(), &folder) {
        found = called(folder);
    }
    match found[..] {
        [project] => Ok(format!("/api/v2/projects/{}", text(&project["id"]))),
        [] => Err(Failure::new(format!("there is no project `{shown}`"))
            .hint("give the name of one, or the folder that is deployed")),
        _ => Err(Failure::new(format!("{} projects are called `{shown}`", found.len()))
            .hint("rename one of them by the API: this command goes by names")),
    }
}

fn read(answer: &Value) -> Result<Map<String, Value>, Failure> {
    serde_json::from_str(text(&answer["environment"])).context("the server's variables are not JSON")
}

fn print(global: &Global, args: &Environment, variables: &Map<String, Value>) {
    if global.json {
        let names: Vec<&String> = variables.keys().collect();
        let shown = if args.values { json!({ "environment": variables }) } else { json!({ "names": names }) };
        println!("{shown}");
        return;
    }
    if variables.is_empty() {
        println!("No variables.");
    }
    for (name, value) in variables {
        if args.values {
            println!("{name}={}", text(value));
        } else {
            println!("{name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_equals_signs_and_a_name_must_be_there() {
        assert_eq!(assignment("A=b=c").unwrap(), ("A".to_owned(), json!("b=c")));
        assert_eq!(assignment("A=").unwrap(), ("A".to_owned(), json!("")));
        for wrong in ["=x", "MILLGATE_TEST_NOT_SET"] {
            assert!(assignment(wrong).unwrap_err().to_string().contains("hint:"));
        }
    }
}
