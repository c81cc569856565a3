//! `millgate user`.

use std::io::{BufRead, IsTerminal};

use serde_json::{Value, json};

use super::lookup::text;
use crate::{
    args::{Global, User, UserCreate, UserRole},
    client::{Client, percent_encode},
    failure::{Context, Failure},
    terminal,
};

/// `millgate user …`.
pub(crate) fn user(global: &Global, command: &User) -> Result<(), Failure> {
    let client = Client::open(global)?;
    match command {
        User::Create(args) => create(global, &client, args),
        User::List => list(global, &client),
        User::Delete { username } => {
            let answer = client.delete(&path(username))?;
            say(
                global,
                &answer,
                &format!("User `{username}` is deleted with all keys; what they made goes on."),
            );
            Ok(())
        }
        User::SetRole { username, role } => {
            let answer = client.patch(&path(username), &json!({ "role": role.word() }))?;
            say(global, &answer, &format!("User `{username}` is {}.", text(&answer["role"])));
            Ok(())
        }
        User::SetPassword { username } => {
            let body = json!({ "password": password()?, "current_password": "" });
            let answer = client.put(&format!("{}/password", path(username)), &body)?;
            say(global, &answer, &format!("The password of `{username}` is set."));
            Ok(())
        }
        User::Disable { username } => set_disabled(global, &client, username, true),
        User::Enable { username } => set_disabled(global, &client, username, false),
    }
}

fn path(username: &str) -> String {
    format!("/api/v2/users/{}", percent_encode(username))
}

fn say(global: &Global, answer: &Value, words: &str) {
    if global.json {
        println!("{answer}");
    } else {
        println!("{words}");
    }
}

fn create(global: &Global, client: &Client, args: &UserCreate) -> Result<(), Failure> {
    let mut body = json!({
        "username": args.username,
        "email": args.email,
        "role": args.role.word(),
        "kind": if args.service { "service" } else { "person" },
    });
    if let Some(name) = &args.name {
        body["name"] = json!(name);
    }
    if args.password {
        body["password"] = json!(password()?);
    }
    let user = client.post("/api/v2/users", &body)?;
    let name = &args.username;
    say(global, &user, &format!("User `{name}` is there. `millgate key create --user {name}` makes a key."));
    Ok(())
}

fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let users = client.list("/api/v2/users", "users", None)?;
    if global.json {
        println!("{}", Value::Array(users));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = users
        .iter()
        .map(|user| {
            let state = if user["is_disabled"] == true { "disabled" } else { "" };
            let words = ["username", "role", "kind", "email"].map(|field| text(&user[field]).to_owned());
            words.into_iter().chain([state.to_owned()]).collect()
        })
        .collect();
    println!("{}", terminal::table(&["USER", "ROLE", "KIND", "EMAIL", "STATE"], &rows));
    Ok(())
}

fn set_disabled(global: &Global, client: &Client, username: &str, is_disabled: bool) -> Result<(), Failure> {
    let answer = client.patch(&path(username), &json!({ "is_disabled": is_disabled }))?;
    let words = if is_disabled { "is disabled: nothing opens to their keys" } else { "may come in again" };
    say(global, &answer, &format!("User `{username}` {words}."));
    Ok(())
}

/// The first line of standard input: a password given as an argument is seen by everybody on the host.
fn password() -> Result<String, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("Password (it is shown as you type; pipe it in to hide it):");
    }
    let mut line = String::new();
    input.lock().read_line(&mut line).context("cannot read a password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage("no password on standard input").hint("pipe it in, as in `… < file`"));
    }
    Ok(password.to_owned())
}

impl UserRole {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Administrator => "administrator",
        }
    }
}
