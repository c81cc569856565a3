//! The list of operations: API v2, what is this project's own on the same base, and the old interface. A new route is a
//! new entry here and nowhere else; `cargo test` then says which definition or sample it still lacks.

use axum::http::Method;

use super::{
    audit, builds, calls, client_package, collaborators, deployments, document, environment, file_move,
    files, keys, login, metrics, models, old,
    operation::{
        Answers,
        Needs::{Administrator, InTeam, Key, Nothing, Oneself, RightByBody},
        Route, Takes, route,
    },
    profiles, projects, runtimes, source, teams, users,
};
use crate::rights::Right::{Change, Govern, Operate, See};

/// Paths below a project, and below what is in it.
macro_rules! path {
    (project $rest:literal) => {
        concat!("/api/v2/projects/{project_id}", $rest)
    };
    (model $rest:literal) => {
        concat!("/api/v2/projects/{project_id}/models/{model_id}", $rest)
    };
    (build $rest:literal) => {
        concat!("/api/v2/projects/{project_id}/models/{model_id}/builds/{build_id}", $rest)
    };
    (deployment $rest:literal) => {
        concat!(
            "/api/v2/projects/{project_id}/models/{model_id}/builds/{build_id}/deployments/{deployment_id}",
            $rest
        )
    };
    (old $verb:literal) => {
        concat!("/api/altus-ds-1/models/", $verb)
    };
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

const LATEST: &str = "with `latest_build` and `latest_deployment` of each";
const FOLLOW: &str = "go on until there is nothing more to come";

/// Every operation.
pub(crate) fn all() -> Vec<Route> {
    let groups = [
        projects(),
        files(),
        models(),
        builds(),
        deployments(),
        tracked(),
        accounts(),
        resource_profiles(),
        teams(),
        audit(),
        documents(),
        old(),
    ];
    groups.into_iter().flatten().collect()
}

fn projects() -> Vec<Route> {
    let visible = |route: Route| {
        route.query("include_public_projects", "boolean", "those that everybody sees, too").query(
            "include_all_projects",
            "boolean",
            "all there are; of administrators",
        )
    };
    vec![
        visible(route((GET, "/api/v2/projects"), "ListProjects", Key, projects::list))
            .lists("projects", "Project")
            .about("Lists the projects the caller works in"),
        route((POST, "/api/v2/projects"), "CreateProject", Key, projects::create)
            .takes("CreateProjectRequest")
            .answers("Project")
            .about("Makes a project that the caller, or a team of theirs, owns"),
        visible(route((GET, "/api/v2/projectnames"), "ListProjectNames", Key, projects::names))
            .lists("project_names", "")
            .about("Lists the names of the projects the caller works in"),
        route((GET, path!(project "")), "GetProject", See, projects::show)
            .answers("Project")
            .about("Shows a project"),
        route((PATCH, path!(project "")), "UpdateProject", Change, projects::update)
            .takes("Project")
            .answers("Project")
            .about("Changes a project; its visibility and owner only by who governs it"),
        route((DELETE, path!(project "")), "DeleteProject", Govern, projects::delete)
            .about("Stops all models of a project and deletes it"),
        route((GET, path!(project "/collaborators")), "ListProjectCollaborators", See, collaborators::list)
            .lists("collaborators", "Collaborator")
            .about("Lists who works in a project, its owner not included"),
        route(
            (PUT, path!(project "/collaborators/{username}")),
            "AddProjectCollaborator",
            Govern,
            collaborators::add,
        )
        .takes("AddProjectCollaboratorRequest")
        .about("Gives a user a level in a project, or another one"),
        route(
            (DELETE, path!(project "/collaborators/{username}")),
            "DeleteProjectCollaborator",
            Govern,
            collaborators::remove,
        )
        .about("Takes a user out of a project"),
    ]
}

fn files() -> Vec<Route> {
    vec![
        route((GET, path!(project "/files")), "ListProjectRootFiles", See, files::list_root)
            .also_at(path!(project "/files/"))
            .lists_all("files", "ProjectFile")
            .about("Lists the files and folders at the root of a project"),
        route((GET, path!(project "/files/{path}")), "ListProjectFiles", See, files::list)
            .lists_all("files", "ProjectFile")
            .about("Lists a folder of a project, or the one file"),
        route((POST, path!(project "/files")), "UploadProjectFiles", Change, files::upload)
            .body(Takes::Files)
            .about("Writes files; each key of the form is the path of its file"),
        route((POST, path!(project "/files/{path}:download")), "DownloadProjectFile", See, files::download)
            .goes_unrecorded()
            .answer(Answers::File("application/octet-stream"))
            .about("The bytes of a file"),
        route(
            (PATCH, path!(project "/files/{path}")),
            "UpdateProjectFileMetadata",
            Change,
            file_move::rename,
        )
        .takes("ProjectFileMetadata")
        .about("Gives a file or folder another path"),
        route((DELETE, path!(project "/files/{path}")), "DeleteProjectFile", Change, files::delete)
            .about("Deletes a file, or a folder with all in it"),
        route((PUT, path!(project "/source")), "ReplaceProjectSource", Change, source::replace)
            .body(Takes::Archive)
            .answers("ReplaceProjectSourceResponse")
            .about("Puts the files of a tar archive in the place of all files there are"),
    ]
}

fn models() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/models"), "ListAllModels", Key, models::list_all)
            .lists("models", "Model")
            .query("include_latest", "boolean", LATEST)
            .about("Lists the models of every project the caller works in"),
        route((GET, path!(project "/models")), "ListModels", See, models::list)
            .lists("models", "Model")
            .query("include_latest", "boolean", LATEST)
            .about("Lists the models of a project"),
        route((POST, path!(project "/models")), "CreateModel", Change, models::create)
            .takes("CreateModelRequest")
            .answers("Model")
            .about("Makes a model and, if asked for, its first build and deployment"),
        route((GET, path!(model "")), "GetModel", See, models::show)
            .answers("Model")
            .query("include_latest", "boolean", LATEST)
            .about("Shows a model"),
        route((PATCH, path!(model "")), "UpdateModel", Change, models::update)
            .takes("Model")
            .also_takes(&["disable_authentication", "project_id"])
            .answers("Model")
            .about("Changes a model"),
        route((DELETE, path!(model "")), "DeleteModel", Change, models::delete)
            .about("Stops a model and deletes it with its builds"),
        route(
            (POST, path!(model ":regenerate_access_key")),
            "RegenerateModelAccessKey",
            Change,
            models::regenerate_access_key,
        )
        .answers("Model")
        .about("Gives a model a new access key; the old one is no model's within a second"),
        route((GET, path!(model "/deployments")), "ListDeploymentsOfModel", See, models::deployments)
            .lists("model_deployments", "ModelDeployment")
            .about("Lists the deployments of all builds of a model"),
        route((GET, path!(model "/calls")), "ListModelCalls", Change, calls::list)
            .lists_all("calls", "ModelCall")
            .query("code", "string", "those that ended so: `ok`, or the code of an error")
            .query("since", "string", "a time, or how long ago as in `15m`")
            .query("limit", "integer", "how many, the newest; 100 unless given")
            .about("Lists who called a model, when, and how it ended; the newest last"),
    ]
}

fn builds() -> Vec<Route> {
    vec![
        route((GET, path!(model "/builds")), "ListModelBuilds", See, builds::list)
            .lists("model_builds", "ModelBuild")
            .about("Lists the builds of a model"),
        route((POST, path!(model "/builds")), "CreateModelBuild", Change, builds::create)
            .takes("CreateModelBuildRequest")
            .answers("ModelBuild")
            .about("Builds a model from its project's files and, if asked for, deploys it"),
        route((GET, path!(build "")), "GetModelBuild", See, builds::show)
            .answers("ModelBuild")
            .about("Shows a build"),
        route((PATCH, path!(build "")), "UpdateModelBuild", Change, builds::update)
            .takes("UpdateModelBuildRequest")
            .also_takes(&["project_id", "model_id", "build_id"])
            .answers("ModelBuild")
            .about("Keeps a build whatever its age, or lets it be collected"),
        route((POST, path!(build ":rebuild")), "RebuildModelBuild", Change, builds::rebuild)
            .takes("RebuildModelBuildRequest")
            .also_takes(&["project_id", "model_id", "build_id"])
            .answers("ModelBuild")
            .about("Makes a new build from the source of an earlier one, with the packages that it had"),
        route((DELETE, path!(build "")), "DeleteModelBuild", Change, builds::delete)
            .about("Deletes a build that is not deployed"),
        route((GET, path!(build "/log")), "FollowModelBuildLog", See, builds::log)
            .answer(Answers::Events)
            .query("follow", "boolean", FOLLOW)
            .about("The log of a build"),
    ]
}

fn deployments() -> Vec<Route> {
    vec![
        route((GET, path!(build "/deployments")), "ListModelDeployments", See, deployments::list)
            .lists("model_deployments", "ModelDeployment")
            .about("Lists the deployments of a build"),
        route((POST, path!(build "/deployments")), "CreateModelDeployment", Change, deployments::create)
            .takes("CreateModelDeploymentRequest")
            .answers("ModelDeployment")
            .about("Deploys a build; one that is not built yet is waited for"),
        route((GET, path!(deployment "")), "GetModelDeployment", See, deployments::show)
            .answers("ModelDeployment")
            .about("Shows a deployment"),
        route((POST, path!(deployment ":stop")), "StopModelDeployment", Operate, deployments::stop)
            .also_takes(&["project_id", "model_id", "build_id", "deployment_id"])
            .answers("ModelDeployment")
            .about("Stops a deployment"),
        route((POST, path!(deployment ":restart")), "RestartModelDeployment", Operate, deployments::restart)
            .also_takes(&["project_id", "model_id", "build_id", "deployment_id"])
            .answers("ModelDeployment")
            .about("Replaces every replica by a new one, without a gap; one that is over begins again"),
        route((GET, path!(deployment "/log")), "FollowModelDeploymentLog", See, deployments::log)
            .answer(Answers::Events)
            .query("follow", "boolean", FOLLOW)
            .query("request_id", "string", "lines of this request only")
            .about("What the replicas of a deployment print"),
        route(
            (GET, path!(deployment "/replicas")),
            "ListModelDeploymentReplicas",
            See,
            deployments::replicas,
        )
        .answers("ModelDeploymentReplicas")
        .about("The replicas of a deployment, and what holds them in"),
    ]
}

/// Whoever may call a model may add to its metrics: public visibility does not suffice for that.
fn tracked() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/metrics"), "ListMetrics", RightByBody(See), metrics::list)
            .query("model_deployment_crn", "string", "rows of this deployment")
            .query("model_build_crn", "string", "rows of the deployments of this build")
            .query("model_crn", "string", "rows of this model; one of the three must be there")
            .query("start_timestamp_ms", "number", "rows that begin then or later, 0 unless given")
            .query("end_timestamp_ms", "number", "rows that end then or earlier, now unless given")
            .query("page_size", "integer", "how many, 10000 unless given, 100000 at most")
            .query("page_token", "string", "`next_page_token` of the page before")
            .answer(Answers::List { field: "metrics", of: "MetricRow", is_paged: true })
            .about("Lists what predictions tracked, and aggregates, ascending by their start"),
        // Kept under the caller's name until the prediction is there, and then only if they may add to it.
        route((POST, "/api/v2/metrics/delayed"), "TrackDelayedMetrics", Key, metrics::add_delayed)
            .goes_unrecorded()
            .takes("TrackDelayedMetricsRequest")
            .about("Adds metrics to a prediction that became known after it"),
        route(
            (POST, "/api/v2/metrics/aggregates"),
            "TrackAggregateMetrics",
            RightByBody(See),
            metrics::add_aggregate,
        )
        .goes_unrecorded()
        .takes("TrackAggregateMetricsRequest")
        .about("Adds a row about a span of time"),
    ]
}

fn accounts() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/users"), "ListUsers", Administrator, users::list)
            .lists("users", "User")
            .about("Lists the users of this server"),
        route((POST, "/api/v2/users"), "CreateUser", Administrator, users::create)
            .takes("CreateUserRequest")
            .answers("User")
            .about("Makes a user or a service account"),
        route((PATCH, "/api/v2/users/{username}"), "UpdateUser", Oneself, users::update)
            .takes("User")
            .answers("User")
            .about("Changes a user; role and access only by an administrator"),
        route((DELETE, "/api/v2/users/{username}"), "DeleteUser", Administrator, users::delete)
            .about("Deletes a user with all keys; what they made goes on"),
        route((PUT, "/api/v2/users/{username}/password"), "SetPassword", Oneself, users::set_password)
            .takes("SetPasswordRequest")
            .about("Sets a user's password"),
        route((POST, "/api/v2/auth/login"), "Login", Nothing, login::login)
            .takes("LoginRequest")
            .answers("CreateV2KeyResponse")
            .about("Gives who knows the password an API key for half a day"),
        route((GET, "/api/v2/users/{username}"), "GetUser", Oneself, users::show)
            .answers("User")
            .about("Shows a user"),
        route((GET, "/api/v2/users/{username}/v2_keys"), "ListV2Keys", Oneself, keys::list)
            .lists_all("keys", "V2Key")
            .about("Lists the API keys of a user, without the keys themselves"),
        route((POST, "/api/v2/users/{username}/v2_keys"), "CreateV2Key", Oneself, keys::create)
            .takes("CreateV2KeyRequest")
            .answers("CreateV2KeyResponse")
            .about("Makes an API key; it is shown only this once"),
        route((DELETE, "/api/v2/users/{username}/v2_keys"), "DeleteV2Keys", Oneself, keys::delete_all)
            .about("Deletes all API keys of a user"),
        route((DELETE, "/api/v2/users/{username}/v2_keys/{key_id}"), "DeleteV2Key", Oneself, keys::delete)
            .about("Deletes an API key"),
        route((POST, "/api/v2/auth/validate_key"), "ValidateApiKeyV2", Nothing, keys::validate)
            .goes_unrecorded()
            .takes("ValidateApiKeyV2Request")
            .answers("ValidateApiKeyV2Response")
            .about("Says whether the key of this request is good, and whose it is"),
        route((GET, "/api/v2/runtimes"), "ListRuntimes", Key, runtimes::list)
            .lists("runtimes", "Runtime")
            .about("Lists the runtimes that models are built for"),
        route((POST, "/api/v2/runtimes"), "AddRuntime", Administrator, runtimes::add)
            .takes("AddRuntimeRequest")
            .answers("Runtime")
            .about("Adds a Python of the server's host, in the place of one of the same minor version"),
        route((DELETE, "/api/v2/runtimes/{version}"), "RemoveRuntime", Administrator, runtimes::remove)
            .about("Takes away a Python that was added and that no deployment runs by; `3.12`"),
        route((GET, "/api/v2/environment"), "GetServerEnvironment", Administrator, environment::show)
            .answers("ServerEnvironment")
            .about("Shows the variables of all models"),
        route((PUT, "/api/v2/environment"), "SetServerEnvironment", Administrator, environment::replace)
            .takes("SetServerEnvironmentRequest")
            .answers("ServerEnvironment")
            .about("Sets the variables of what is built or launched from now on; a project's and a deployment's win"),
    ]
}

fn resource_profiles() -> Vec<Route> {
    const ONE: &str = "/api/v2/resource_profiles/{profile_name}";
    vec![
        route((GET, "/api/v2/resource_profiles"), "ListResourceProfiles", Key, profiles::list)
            .lists("resource_profiles", "ResourceProfile")
            .about("Lists the amounts that a deployment may ask for by name"),
        route((POST, "/api/v2/resource_profiles"), "CreateResourceProfile", Administrator, profiles::create)
            .takes("CreateResourceProfileRequest")
            .answers("ResourceProfile")
            .about("Adds a resource profile"),
        route((PATCH, ONE), "UpdateResourceProfile", Administrator, profiles::update)
            .takes("ResourceProfile")
            .answers("ResourceProfile")
            .about("Changes what a resource profile says to deployments to come"),
        route((DELETE, ONE), "DeleteResourceProfile", Administrator, profiles::delete)
            .about("Deletes a resource profile; deployments that were made with it stay as they are"),
    ]
}

fn teams() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/teams"), "ListTeams", Key, teams::list)
            .lists("teams", "Team")
            .about("Lists the teams the caller is in"),
        route((POST, "/api/v2/teams"), "CreateTeam", Administrator, teams::create)
            .takes("CreateTeamRequest")
            .answers("Team")
            .about("Makes a team"),
        route((GET, "/api/v2/teams/{team_name}"), "GetTeam", InTeam(See), teams::show)
            .answers("Team")
            .about("Shows a team and its members"),
        route((DELETE, "/api/v2/teams/{team_name}"), "DeleteTeam", InTeam(Govern), teams::delete)
            .about("Deletes a team that owns no project"),
        route(
            (PUT, "/api/v2/teams/{team_name}/members/{username}"),
            "AddTeamMember",
            InTeam(Govern),
            teams::add_member,
        )
        .takes("AddTeamMemberRequest")
        .about("Gives a user a level in all projects of a team, or another one"),
        route(
            (DELETE, "/api/v2/teams/{team_name}/members/{username}"),
            "DeleteTeamMember",
            InTeam(Govern),
            teams::remove_member,
        )
        .about("Takes a user out of a team"),
    ]
}

fn audit() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/audit"), "ListAuditEntries", Administrator, audit::list)
            .lists("entries", "AuditEntry")
            .query("since", "string", "RFC 3339: entries from then on")
            .query("until", "string", "RFC 3339: entries before then")
            .about("Who did what to which object, when, and from where"),
        route((GET, "/api/v2/audit/export"), "ExportAudit", Administrator, audit::export)
            .answer(Answers::File("application/x-ndjson"))
            .about("All of it as JSON lines"),
    ]
}

fn documents() -> Vec<Route> {
    vec![
        route((GET, "/api/v2/swagger.json"), "GetDocument", Nothing, document::show)
            .answer(Answers::Any)
            .about("This document"),
        route((GET, "/api/v2/swagger.html"), "GetDocumentPage", Nothing, document::page)
            .answer(Answers::File("text/html"))
            .about("A page to read this document and to try the operations"),
        route((GET, "/api/v2/python.tar.gz"), "GetPythonClient", Nothing, client_package::show)
            .answer(Answers::File("application/gzip"))
            .about("The Python client of this server, for `pip install`"),
    ]
}

fn old() -> Vec<Route> {
    let routes = [
        route((POST, path!(old "list-models")), "OldListModels", RightByBody(See), old::list)
            .goes_unrecorded()
            .about("Lists models"),
        route((POST, path!(old "get-model")), "OldGetModel", RightByBody(See), old::show)
            .goes_unrecorded()
            .about("Shows a model"),
        route((POST, path!(old "create-model")), "OldCreateModel", RightByBody(Change), old::create)
            .about("Makes a model, builds and deploys it"),
        route((POST, path!(old "build-model")), "OldBuildModel", RightByBody(Change), old::build)
            .about("Builds a model"),
        route((POST, path!(old "deploy-model")), "OldDeployModel", RightByBody(Change), old::deploy)
            .about("Deploys a build"),
        route((POST, path!(old "delete-model")), "OldDeleteModel", RightByBody(Change), old::delete)
            .about("Stops a model and deletes it"),
        route((POST, path!(old "set-model-auth")), "OldSetModelAuth", RightByBody(Change), old::set_auth)
            .about("Says whether a model is called with an API key"),
    ];
    routes.into_iter().map(|route| route.body(Takes::Object).answer(Answers::Any)).collect()
}
