//! Resource profiles: amounts by name, for deployments to ask for. Administrators make them, everybody sees them. A
//! deployment takes the amounts of the moment it is made; no change of a profile reaches one that is there.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::Path,
    fields::Fields,
    query::Params,
    views,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    moment::rfc3339,
    rows::{Amounts, ResourceProfile},
};

/// Cores of one replica; more than any host has.
const CPU_MAX: f64 = 4_096.0;
/// GB of one replica; more than any host has.
const MEMORY_GB_MAX: f64 = 65_536.0;
/// GPUs of one replica; more than any host has.
const GPUS_MAX: i64 = 1_024;

/// The fields `cpu`, `memory` and `nvidia_gpus` of a request; what is not said is that of `defaults`.
pub(super) fn read_amounts(body: &mut Fields, defaults: Amounts) -> Outcome<Amounts> {
    let cpu = body.decimal("cpu", CPU_MAX)?.map(|cores| ((cores * 1_000.0).round() as i64).max(1));
    let memory = body.decimal("memory", MEMORY_GB_MAX)?.map(|gb| ((gb * 1_024.0).round() as i64).max(1));
    let gpus = body.integer("nvidia_gpus", 0, GPUS_MAX)?;
    Ok(Amounts {
        cpu_millicores: cpu.unwrap_or(defaults.cpu_millicores),
        memory_mb: memory.unwrap_or(defaults.memory_mb),
        nvidia_gpus: gpus.unwrap_or(defaults.nvidia_gpus),
        ..defaults
    })
}

/// The profile that a request names, and the amounts it gives in the place of `defaults`.
pub(super) async fn named(app: &App, body: &mut Fields, defaults: Amounts) -> Outcome<(String, Amounts)> {
    let Some(name) = body.text("resource_profile")?.filter(|name| !name.is_empty()) else {
        return Ok((String::new(), defaults));
    };
    let rule = "there is no such profile; `millgate profiles` lists those there are";
    let missing = || body.wrong("resource_profile", &json!(name), rule);
    let profile = app.store.profile(&name).await?.ok_or_else(missing)?;
    Ok((name, profile.amounts(defaults)))
}

impl ResourceProfile {
    /// What it says, in the place of these.
    fn amounts(&self, defaults: Amounts) -> Amounts {
        Amounts {
            cpu_millicores: self.cpu_millicores,
            memory_mb: self.memory_mb,
            nvidia_gpus: self.nvidia_gpus,
            ..defaults
        }
    }

    fn with(self, amounts: Amounts) -> Self {
        Self {
            cpu_millicores: amounts.cpu_millicores,
            memory_mb: amounts.memory_mb,
            nvidia_gpus: amounts.nvidia_gpus,
            ..self
        }
    }
}

fn view(profile: &ResourceProfile) -> Value {
    json!({
        "name": profile.name,
        "description": profile.description,
        "cpu": views::decimal(profile.cpu_millicores, 1_000),
        "memory": views::decimal(profile.memory_mb, 1_024),
        "nvidia_gpus": profile.nvidia_gpus,
        "created_at": rfc3339(profile.created_us),
        "updated_at": rfc3339(profile.updated_us),
    })
}

async fn found(app: &App, name: &str) -> Outcome<ResourceProfile> {
    app.store.profile(name).await?.ok_or_else(|| Fault::missing("resource profile", name))
}

pub(crate) async fn list(State(app): State<App>, params: Params) -> Answered {
    let page = app.store.profiles(&params.paging()?).await?;
    let profiles: Vec<Value> = page.items.iter().map(view).collect();
    Ok(Answer::of(json!({ "resource_profiles": profiles, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(State(app): State<App>, mut body: Fields) -> Answered {
    // A part of paths, as usernames are.
    let name = body.username("name")?;
    let description = body.text("description")?.unwrap_or_default();
    let amounts = read_amounts(&mut body, Amounts { cpu_millicores: 0, memory_mb: 0, ..Amounts::default() })?;
    for (field, amount) in [("cpu", amounts.cpu_millicores), ("memory", amounts.memory_mb)] {
        if amount == 0 {
            return Err(Fault::Invalid(format!("field `{field}` is missing: it must be a number above 0")));
        }
    }
    let new = ResourceProfile { name, description, ..ResourceProfile::default() }.with(amounts);
    app.store.insert_profile(&new).await?;
    Ok(Answer::of(view(&found(&app, &new.name).await?)).ignoring(body.unknown()))
}

pub(crate) async fn update(State(app): State<App>, Path(name): Path<String>, mut body: Fields) -> Answered {
    let before = found(&app, &name).await?;
    let amounts = read_amounts(&mut body, before.amounts(Amounts::default()))?;
    let description = body.text("description")?.unwrap_or_else(|| before.description.clone());
    let changed = ResourceProfile { description, ..before }.with(amounts);
    if !app.store.update_profile(&changed).await? {
        return Err(Fault::missing("resource profile", &name));
    }
    // Clients send back the whole object they read.
    body.ignore(&["name", "created_at", "updated_at"]);
    Ok(Answer::of(view(&found(&app, &name).await?)).ignoring(body.unknown()))
}

pub(crate) async fn delete(State(app): State<App>, Path(name): Path<String>) -> Answered {
    if !app.store.delete_profile(&name).await? {
        return Err(Fault::missing("resource profile", &name));
    }
    Ok(Answer::empty())
}
