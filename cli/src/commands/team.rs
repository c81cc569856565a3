//! `millgate team`.

use serde_json::{Value, json};

use super::lookup::text;
use crate::{
    args::{Global, Team},
    client::{Client, percent_encode},
    failure::Failure,
    terminal,
};

const PATH: &str = "/api/v2/teams";

/// `millgate team …`.
pub(crate) fn team(global: &Global, command: &Team) -> Result<(), Failure> {
    let client = Client::open(global)?;
    let (answer, words) = match command {
        Team::List => return list(global, &client),
        Team::Show { team } => return show(global, &client, team),
        Team::Create { team, description } => (
            client.post(PATH, &json!({ "name": team, "description": description }))?,
            format!("Team `{team}` is there. `millgate team add {team} USER` lets somebody in."),
        ),
        Team::Add { team, username, permission } => (
            client.put(&member(team, username), &json!({ "permission": permission }))?,
            format!("User `{username}` is {permission} in all projects of `{team}`."),
        ),
        Team::Remove { team, username } => {
            (client.delete(&member(team, username))?, format!("User `{username}` is in `{team}` no more."))
        }
        Team::Delete { team } => (client.delete(&path(team))?, format!("Team `{team}` is deleted.")),
    };
    println!("{}", if global.json { answer.to_string() } else { words });
    Ok(())
}

fn path(team: &str) -> String {
    format!("{PATH}/{}", percent_encode(team))
}

fn member(team: &str, username: &str) -> String {
    format!("{}/members/{}", path(team), percent_encode(username))
}

fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let teams = client.list(PATH, "teams", None)?;
    if global.json {
        println!("{}", json!({ "teams": teams }));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = teams
        .iter()
        .map(|team| {
            let members = team["members"].as_array().map_or(0, Vec::len).to_string();
            vec![text(&team["name"]).to_owned(), members, printable(&team["description"])]
        })
        .collect();
    println!("{}", terminal::table(&["TEAM", "MEMBERS", "DESCRIPTION"], &rows));
    Ok(())
}

fn show(global: &Global, client: &Client, team: &str) -> Result<(), Failure> {
    let team = client.get(&path(team))?;
    if global.json {
        println!("{team}");
        return Ok(());
    }
    let members = team["members"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = members
        .map(|member| {
            let user = &member["user"];
            vec![
                text(&user["username"]).to_owned(),
                text(&member["permission"]).to_owned(),
                printable(&user["name"]),
            ]
        })
        .collect();
    println!("{}", terminal::table(&["USER", "PERMISSION", "NAME"], &rows));
    Ok(())
}

fn printable(value: &Value) -> String {
    terminal::printable(text(value)).into_owned()
}
