//! The runtimes there are: what models can be built for.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::Path,
    fields::Fields,
    query::Params,
};
use crate::{
    app::App,
    fault::Fault,
    runtimes::{Added, Minor, Runtime},
    store::{PAGE_SIZE_DEFAULT, Paging, decode_token, encode_token},
};

/// The server's own first, then those that were added, ascending by version.
pub(crate) async fn list(State(app): State<App>, params: Params) -> Answered {
    let paging = params.paging()?;
    let default = app.runtimes.default();
    let own = enabled(default, "of this host, for builds that name no version");
    let added = app.runtimes.added().into_iter().map(|(minor, added)| match added {
        Added::Here(runtime) => enabled(&runtime, &format!("at {}", runtime.python.executable.display())),
        Added::Lost { path, reason } => disabled(minor, &path, &reason),
    });
    let shown: Vec<Value> = std::iter::once(own).chain(added).filter(|r| is_shown(r, &paging)).collect();
    let skipped = usize::try_from(decode_token(&paging.page_token)?).unwrap_or(usize::MAX);
    let size = usize::try_from(paging.page_size.unwrap_or(PAGE_SIZE_DEFAULT)).unwrap_or(usize::MAX);
    let next = skipped.saturating_add(size);
    let token = if next < shown.len() {
        encode_token(i64::try_from(next).unwrap_or(i64::MAX))
    } else {
        String::new()
    };
    let page: Vec<Value> = shown.into_iter().skip(skipped).take(size).collect();
    Ok(Answer::of(json!({ "runtimes": page, "next_page_token": token })))
}

fn is_shown(runtime: &Value, paging: &Paging) -> bool {
    paging.search.iter().all(|(key, text)| {
        runtime.get(key).is_none_or(|value| {
            value.as_str().unwrap_or_default().to_lowercase().contains(&text.to_lowercase())
        })
    })
}

pub(crate) async fn add(State(app): State<App>, mut body: Fields) -> Answered {
    let path = body.name("python")?;
    let runtime = app.runtimes.add(&app.store, std::path::Path::new(&path)).await?;
    tracing::info!(python = %runtime.python.version, path, "a runtime was added");
    // Deployments that waited for it.
    app.changed();
    let place = format!("at {}", runtime.python.executable.display());
    Ok(Answer::of(enabled(&runtime, &place)).ignoring(body.unknown()))
}

/// Refused while a deployment runs by it, which would find it no more when it is started again.
pub(crate) async fn remove(State(app): State<App>, Path(version): Path<String>) -> Answered {
    let minor: Minor = version.parse().map_err(|()| Fault::missing("runtime", &version))?;
    app.runtimes.is_removable(minor)?;
    for (deployment, _) in app.store.live_deployments().await? {
        let build = app.dir.build(deployment.build_id.as_str());
        if Minor::of_environment(&build.join("venv")) == Some(minor) {
            return Err(Fault::Precondition(format!(
                "deployment {} runs by Python {minor}; stop it first",
                deployment.number
            )));
        }
    }
    app.runtimes.remove(&app.store, minor).await?;
    Ok(Answer::empty())
}

fn enabled(runtime: &Runtime, which: &str) -> Value {
    let python = &runtime.python;
    json!({
        "image_identifier": python.runtime_identifier(),
        "editor": "Workbench",
        "kernel": python.kernel(),
        "edition": "Standard",
        "description": format!("Python {} {which}", python.version),
        "full_version": python.version,
        "status": "ENABLED",
        "register_user_id": 0,
    })
}

fn disabled(minor: Minor, path: &std::path::Path, reason: &str) -> Value {
    json!({
        "image_identifier": format!("millgate/ml-runtime-workbench-python{minor}-standard"),
        "editor": "Workbench",
        "kernel": format!("Python {minor}"),
        "edition": "Standard",
        "description": format!("Python {minor} at {}: {reason}", path.display()),
        "full_version": minor.to_string(),
        "status": "DISABLED",
        "register_user_id": 0,
    })
}
