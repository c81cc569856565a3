//! Projects and their collaborators.

use axum::extract::State;
use millgate_contract::ids::Username;
use serde_json::{Value, json};

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    fields::Fields,
    query::Params,
    teams,
    views::{self, People},
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    origin::{self, Repository},
    rights::Right,
    rows::{Level, Project, UserKind, Visibility},
    store::{NewProject, ProjectPatch},
    template,
};

const VISIBILITIES: &str = "`public`, `organization`, `private`";

pub(crate) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Answered {
    let paging = params.paging()?;
    let page = app
        .store
        .projects(
            &caller.user,
            &paging,
            params.flag("include_public_projects"),
            params.flag("include_all_projects"),
        )
        .await?;
    let mut projects = Vec::with_capacity(page.items.len());
    let people =
        People::of(&app, page.items.iter().flat_map(|p| [p.owner.clone(), p.creator.clone()]).collect())
            .await?;
    for project in &page.items {
        let level = app.store.level(&caller.user, project).await?.unwrap_or(Level::Viewer);
        projects.push(views::project(project, level, &people));
    }
    Ok(Answer::of(json!({ "projects": projects, "next_page_token": page.next_page_token })))
}

pub(crate) async fn names(State(app): State<App>, caller: Caller, params: Params) -> Answered {
    let paging = params.paging()?;
    let page = app
        .store
        .projects(
            &caller.user,
            &paging,
            params.flag("include_public_projects"),
            params.flag("include_all_projects"),
        )
        .await?;
    let names: Vec<&str> = page.items.iter().map(|project| project.name.as_str()).collect();
    Ok(Answer::of(json!({ "project_names": names, "next_page_token": page.next_page_token })))
}

pub(crate) async fn create(State(app): State<App>, caller: Caller, mut body: Fields) -> Answered {
    let template = body.text("template")?.unwrap_or_default();
    let Some(files) = template::files(&template) else {
        return Err(Fault::Invalid(format!(
            "field `template` is {template:?}: it must be `Python`, `blank`, `local` or `git`; upload other files afterwards"
        )));
    };
    let new = NewProject {
        name: body.name("name")?,
        description: body.text("description")?.unwrap_or_default(),
        visibility: body.word("visibility", VISIBILITIES, Visibility::parse)?.unwrap_or(Visibility::Private),
        default_engine_type: body
            .text("default_project_engine_type")?
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "ml_runtime".to_owned()),
        environment: body.environment("environment")?.unwrap_or_else(|| "{}".to_owned()),
        shared_memory_limit: body.integer("shared_memory_limit", 0, 1 << 40)?.unwrap_or(0),
    };
    let git_url = body.text("git_url")?.unwrap_or_default();
    let git_ref = body.text("git_ref")?.unwrap_or_default();
    let parent = body.text("parent_project")?.unwrap_or_default();
    let creator = &caller.user.username;
    let owner = match body.text("team_name")?.filter(|name| !name.is_empty()) {
        Some(team) => team_for(&app, &caller, &team).await?,
        None => creator.clone(),
    };
    body.ignore(&["organization_permission"]);
    let gathered = match (git_url.as_str(), parent.as_str()) {
        ("", "") => origin::of_template(&app, files).await?,
        (url, "") => origin::of_repository(&app, &Repository::read(url, &git_ref)?).await?,
        ("", parent) => {
            let (parent, _) = caller.project(&app, parent, Level::Viewer).await.map_err(|_| {
                Fault::Invalid(format!("field `parent_project` is {parent:?}: there is no such project"))
            })?;
            origin::of_project(&app, &parent).await?
        }
        _ => {
            return Err(Fault::Invalid(
                "fields `git_url` and `parent_project` are both given: a project's files come from one place"
                    .to_owned(),
            ));
        }
    };
    let project = app.store.insert_project(&owner, creator, &new).await?;
    gathered.become_files_of(&app, &project).await?;
    app.changed();
    let level = app.store.level(&caller.user, &project).await?.unwrap_or(Level::Viewer);
    Ok(Answer::of(shown(&app, &project, level).await?).ignoring(body.unknown()))
}

/// The team that is to own a project, if the caller changes what is the team's.
async fn team_for(app: &App, caller: &Caller, name: &str) -> Outcome<Username> {
    let missing = || Fault::Invalid(format!("field `team_name` is {name:?}: the caller is in no such team"));
    let team = teams::found(app, name).await.map_err(|_| missing())?;
    if caller.is_administrator() {
        return Ok(team.username);
    }
    let level = app.store.team_level(name, caller.user.username.as_str()).await?.ok_or_else(missing)?;
    if !level.may(Right::Change) {
        return Err(Fault::Denied(format!(
            "`{}` is {} of team `{name}`; this needs {}",
            caller.user.username,
            level.as_str(),
            Right::Change.least().as_str()
        )));
    }
    Ok(team.username)
}

/// The user or team that a project is to be given to: any user, or a team the caller may make projects of. Clients send
/// the owner there is along with everything else.
async fn new_owner(
    app: &App,
    caller: &Caller,
    body: &mut Fields,
    old: &Username,
) -> Outcome<Option<Username>> {
    let Some(mut owner) = body.object("owner")? else { return Ok(None) };
    owner.ignore(&["name", "email"]);
    let name = owner.text("username")?.filter(|name| !name.is_empty() && *name != old.as_str());
    let Some(name) = name else { return Ok(None) };
    match app.store.user(&name).await? {
        Some(user) if user.kind == UserKind::Team => team_for(app, caller, &name).await.map(Some),
        Some(user) => Ok(Some(user.username)),
        None => Err(Fault::Invalid(format!("field `owner.username` is {name:?}: there is no such user"))),
    }
}

pub(crate) async fn show(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Answered {
    let (project, level) = caller.project(&app, &id, Level::Viewer).await?;
    Ok(Answer::of(shown(&app, &project, level).await?))
}

pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    mut body: Fields,
) -> Answered {
    let (project, level) = caller.project(&app, &id, Level::Contributor).await?;
    let owner = new_owner(&app, &caller, &mut body, &project.owner).await?;
    if owner.is_some() && !level.may(Right::Govern) {
        return Err(Fault::Denied(format!("only an admin of project `{id}` gives it another owner")));
    }
    let patch = ProjectPatch {
        owner,
        name: body.name_or("name")?,
        description: body.text("description")?,
        visibility: body.word("visibility", VISIBILITIES, Visibility::parse)?,
        environment: body.environment("environment")?,
        shared_memory_limit: body.integer("shared_memory_limit", 0, 1 << 40)?,
    };
    if patch.visibility.is_some_and(|v| v != project.visibility) && !level.may(Right::Govern) {
        return Err(Fault::Denied(format!("only an admin of project `{id}` changes its visibility")));
    }
    app.store.update_project(&project, &patch).await?;
    app.changed();
    let project = app.store.project(&project.id).await?.ok_or_else(|| Fault::missing("project", &id))?;
    // Who gave it away may not see it any more.
    let level = app.store.level(&caller.user, &project).await?.unwrap_or(Level::Viewer);
    // Clients send back the whole object they read.
    body.ignore(&["id", "creator", "default_engine_type", "created_at", "updated_at", "creation_status"]);
    body.ignore(&["permissions", "ephemeral_storage_request", "ephemeral_storage_limit"]);
    Ok(Answer::of(shown(&app, &project, level).await?).ignoring(body.unknown()))
}

pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Admin).await?;
    app.store.begin_project_deletion(&project.id).await?;
    app.changed();
    app.wake_collector.notify_one();
    Ok(Answer::empty())
}

async fn shown(app: &App, project: &Project, level: Level) -> Outcome<Value> {
    let people = People::of(app, vec![project.owner.clone(), project.creator.clone()]).await?;
    Ok(views::project(project, level, &people))
}
