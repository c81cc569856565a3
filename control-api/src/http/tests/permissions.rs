//! Every operation of the list, by everybody, on what is theirs to touch and on what is not. A new operation is in here at
//! once: if it takes a body it needs a sample below, and the table that this test keeps must be looked at and accepted.

use std::{fmt::Write, sync::Arc};

use axum::{
    body::Body,
    http::{Method, Request},
};
use millgate_contract::ids::{BuildId, ModelId, ProjectId};
use serde_json::{Value, json};

use crate::{
    CallEvents, CallEventsError,
    http::{
        operation::{Needs, Operation, Takes},
        routes,
    },
    names::crn,
    rights::Right,
    rows::Level,
    testing::{Reply, Rig},
};

const LEVELS: [Level; 4] = [Level::Viewer, Level::Operator, Level::Contributor, Level::Admin];
const IDS: [&str; 5] = ["project_id", "model_id", "build_id", "deployment_id", "key_id"];

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    Member(Level),
    Oneself,
    Administrator,
}

impl Who {
    fn all() -> Vec<Self> {
        let members = LEVELS.map(Self::Member);
        [Self::Nobody, Self::Stranger]
            .into_iter()
            .chain(members)
            .chain([Self::Oneself, Self::Administrator])
            .collect()
    }
}

/// Nobody has called anything.
#[derive(Debug)]
struct NoCalls;

impl CallEvents for NoCalls {
    fn of_model(&self, _: &ModelId, _: &[(String, String)]) -> Result<Vec<String>, CallEventsError> {
        Ok(Vec::new())
    }
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Done,
    NoKey,
    Denied,
    Missing,
}

impl Verdict {
    fn of(reply: &Reply) -> Self {
        match reply.status.as_u16() {
            401 => Self::NoKey,
            403 => Self::Denied,
            404 => Self::Missing,
            _ => Self::Done,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Done => '+',
            Self::NoKey => '1',
            Self::Denied => '3',
            Self::Missing => '4',
        }
    }
}

/// What should come of it.
fn expected(needs: Needs, who: Who) -> Verdict {
    let by_level = |right: Right| match who {
        Who::Nobody => Verdict::NoKey,
        Who::Stranger | Who::Oneself => Verdict::Missing,
        Who::Member(level) if !level.may(right) => Verdict::Denied,
        Who::Member(_) | Who::Administrator => Verdict::Done,
    };
    match (needs, who) {
        (Needs::Nothing, _) => Verdict::Done,
        (_, Who::Nobody) => Verdict::NoKey,
        (Needs::Key, _) => Verdict::Done,
        (Needs::Right(right) | Needs::RightByBody(right) | Needs::InTeam(right), _) => by_level(right),
        (Needs::Oneself, Who::Oneself | Who::Administrator) | (Needs::Administrator, Who::Administrator) => {
            Verdict::Done
        }
        (Needs::Oneself, _) => Verdict::Missing,
        (Needs::Administrator, _) => Verdict::Denied,
    }
}

/// Users with their keys, and the objects that they call about.
struct World {
    rig: Rig,
    keys: Vec<(Who, String)>,
    made: usize,
    /// Of a project that none of the members is in.
    foreign: Objects,
}

/// Names that a path may hold.
#[derive(Debug, Clone)]
struct Objects {
    names: Vec<(&'static str, String)>,
    /// Of project, model and build, for bodies of the old interface.
    numbers: [i64; 3],
    /// Of model and deployment.
    crns: [String; 2],
    /// The key of the user of the path.
    own_key: String,
}

impl World {
    async fn new() -> Self {
        let mut rig = Rig::new().await;
        rig.restart_with(|config| {
            config.builds_queued_max = u32::MAX;
            config.call_events = Some(Arc::new(NoCalls));
        })
        .await;
        let mut keys = vec![(Who::Nobody, String::new()), (Who::Administrator, rig.key.clone())];
        keys.push((Who::Stranger, rig.user("stranger").await));
        for level in LEVELS {
            keys.push((Who::Member(level), rig.user(&format!("the-{}", level.as_str())).await));
        }
        let nothing =
            Objects { names: Vec::new(), numbers: [0; 3], crns: Default::default(), own_key: String::new() };
        let mut world = Self { rig, keys, made: 0, foreign: nothing };
        world.foreign = world.objects(false).await;
        world
    }

    /// A project with a model, a build and a deployment, a team, and a user with a key.
    async fn objects(&mut self, has_members: bool) -> Objects {
        self.made += 1;
        let (rig, n) = (&self.rig, self.made);
        let project = rig.project(&format!("p{n}")).await;
        let team = format!("team-{n}");
        rig.call("POST", "/api/v2/teams", json!({ "name": team })).await.ok();
        for level in LEVELS.iter().filter(|_| has_members) {
            let body = json!({ "permission": level.as_str() });
            let name = format!("the-{}", level.as_str());
            rig.call("PUT", &format!("{project}/collaborators/{name}"), body.clone()).await.ok();
            rig.call("PUT", &format!("/api/v2/teams/{team}/members/{name}"), body).await.ok();
        }
        let model = rig.model(&project, "m").await;
        let build = rig.build(&model, 1).await;
        let deployment = rig.deployment(&build).await;
        let profile = format!("profile-{n}");
        let body = json!({ "name": profile, "cpu": 1, "memory": 1 });
        rig.call("POST", "/api/v2/resource_profiles", body).await.ok();
        let last = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        std::fs::write(rig.app.dir.project(&last(&project)).join("a.py"), "x").unwrap();
        let username = format!("subject-{n}");
        let own_key = rig.user(&username).await;
        let key = rig.call("GET", &format!("/api/v2/users/{username}/v2_keys"), Value::Null).await.ok();
        let store = &rig.app.store;
        let numbers = [
            store.project(&ProjectId::new(last(&project))).await.unwrap().unwrap().number,
            store.model(&ModelId::new(last(&model))).await.unwrap().unwrap().number,
            store.build(&BuildId::new(last(&build))).await.unwrap().unwrap().number,
        ];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = vec![
            ("project_id", last(&project)),
            ("model_id", last(&model)),
            ("build_id", last(&build)),
            ("deployment_id", text(&deployment["id"])),
            ("key_id", text(&key["keys"][0]["key_id"])),
            ("username", username),
            ("team_name", team),
            ("profile_name", profile),
            ("path", "a.py".to_owned()),
            // A request that may be made and is refused: the server's own stays.
            ("version", rig.app.runtimes.default().python.minor().to_string()),
        ];
        let crns = [last(&model), text(&deployment["id"])].map(|id| crn(&rig.app.workspace, &id));
        Objects { names, numbers, crns, own_key }
    }

    async fn call(&self, operation: &Operation, who: Who, objects: &Objects) -> Reply {
        let path = objects.names.iter().fold(operation.path.to_owned(), |path, (name, value)| {
            path.replace(&format!("{{{name}}}"), value)
        });
        let path = if operation.name == "ListMetrics" {
            format!("{path}?model_crn={}", objects.crns[0])
        } else {
            path
        };
        let mut request = Request::builder().method(operation.method.clone()).uri(path);
        let known = self.keys.iter().find(|(known, _)| *known == who).map(|(_, key)| key);
        let key = known.unwrap_or(&objects.own_key);
        if who != Who::Nobody {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if operation.takes == Takes::Files {
            request = request.header("content-type", "multipart/form-data; boundary=cut");
        }
        self.rig.send(request.body(sample(operation, objects)).unwrap()).await
    }
}

/// A body that the operation takes.
fn sample(operation: &Operation, objects: &Objects) -> Body {
    let [project, model, build] = objects.numbers;
    let value = match (operation.takes, operation.name) {
        (Takes::Nothing, _) => json!({}),
        (Takes::Files, _) => {
            let head = "--cut\r\nContent-Disposition: form-data; name=\"b.py\"; filename=\"x\"\r\n\r\nx";
            return Body::from(format!("{head}\r\n--cut--\r\n"));
        }
        (Takes::Archive, _) => return Body::from(vec![0; 1_024]),
        (_, "CreateProject" | "CreateModel") => json!({ "name": "another" }),
        (_, "UpdateProject" | "UpdateModel") => json!({ "description": "x" }),
        (_, "AddProjectCollaborator" | "AddTeamMember") => json!({ "permission": "viewer" }),
        (_, "UpdateProjectFileMetadata") => json!({ "path": "c.py" }),
        (_, "CreateModelBuild") => json!({ "file_path": "a.py", "function_name": "f" }),
        (_, "UpdateModelBuild") => json!({ "is_pinned": true }),
        // The build of `RebuildModelBuild` is not built: a request that may be made and is refused.
        (_, "CreateModelDeployment" | "RebuildModelBuild" | "CreateV2Key" | "ValidateApiKeyV2") => json!({}),
        (_, "CreateUser") => {
            json!({ "username": format!("new-{project}") })
        }
        (_, "UpdateUser") => json!({ "email": "x@example.org" }),
        (_, "SetPassword") => json!({ "password": "long enough for it" }),
        (_, "Login") => json!({ "username": "", "password": "" }),
        // A request that may be made and is refused for what it says.
        (_, "SetServerEnvironment") => json!({ "environment": {"A": "1"} }),
        (_, "CreateResourceProfile") => {
            json!({ "name": format!("new-profile-{project}"), "cpu": 1, "memory": 1 })
        }
        (_, "UpdateResourceProfile") => json!({ "cpu": 2 }),
        (_, "AddRuntime") => json!({ "python": "python3" }),
        (_, "CreateTeam") => json!({ "name": format!("new-team-{project}") }),
        (_, "TrackDelayedMetrics") => {
            json!({ "prediction_uuid": "00000000-0000-4000-8000-000000000000", "metrics": {"a": 1} })
        }
        (_, "TrackAggregateMetrics") => json!({
            "model_deployment_crn": objects.crns[1], "start_timestamp_ms": 1, "end_timestamp_ms": 2, "metrics": {"a": 1},
        }),
        (_, "OldListModels") => json!({ "projectId": project }),
        (_, "OldGetModel" | "OldDeleteModel") => json!({ "id": model }),
        (_, "OldCreateModel") => {
            json!({ "projectId": project, "name": "o", "targetFilePath": "a.py", "targetFunctionName": "f" })
        }
        (_, "OldBuildModel") => {
            json!({ "modelId": model, "targetFilePath": "a.py", "targetFunctionName": "f" })
        }
        (_, "OldDeployModel") => json!({ "modelBuildId": build }),
        (_, "OldSetModelAuth") => json!({ "id": model, "enableAuth": true }),
        (_, name) => {
            panic!("{name} is a new operation: give it a body here, and look at its row in the snapshot")
        }
    };
    Body::from(value.to_string())
}

/// In place of a login's refusal, which is no answer to who calls.
fn is_tried(operation: &Operation) -> bool {
    !matches!(operation.name, "Login" | "ValidateApiKeyV2")
}

#[tokio::test]
async fn every_operation_is_done_for_whom_it_should_and_for_nobody_else() {
    let mut world = World::new().await;
    let (mut table, mut right, mut cells) = (String::new(), 0, 0);
    for operation in routes::all().into_iter().map(|route| route.operation).filter(is_tried) {
        let mut row = String::new();
        let mut objects = world.objects(true).await;
        for who in Who::all() {
            let verdict = Verdict::of(&world.call(&operation, who, &objects).await);
            let should = expected(operation.needs, who);
            cells += 1;
            right += usize::from(verdict == should);
            assert_eq!(verdict, should, "{} by {who:?}", operation.name);
            row.push(verdict.letter());
            if verdict == Verdict::Done && operation.method != Method::GET {
                objects = world.objects(true).await;
            }
        }
        let _ = writeln!(table, "{row} {} {}", operation.method, operation.path);
    }
    println!("permission matrix: {right} of {cells}");
    insta::assert_snapshot!(
        "permissions",
        format!("nobody, stranger, viewer … admin, oneself, administrator\n{table}")
    );
}

#[tokio::test]
async fn what_belongs_to_others_looks_like_what_is_not_there() {
    let mut world = World::new().await;
    // Nothing that is tried is done, so that one of each is enough.
    let own = world.objects(true).await;
    let (mut same, mut cells) = (0, 0);
    for operation in routes::all().into_iter().map(|route| route.operation) {
        for id in IDS.iter().filter(|id| operation.path_parameters().contains(id)) {
            for who in LEVELS.map(Who::Member).into_iter().chain([Who::Oneself]) {
                let with = |value: String| {
                    let mut objects = own.clone();
                    objects.names.iter_mut().find(|(name, _)| name == id).unwrap().1 = value;
                    objects
                };
                let theirs = world.foreign.names.iter().find(|(name, _)| name == id).unwrap().1.clone();
                let none = if *id == "project_id" {
                    "aaaa-bbbb-cccc-dddd".to_owned()
                } else {
                    "00000000-0000-4000-8000-000000000000".to_owned()
                };
                let foreign = world.call(&operation, who, &with(theirs.clone())).await;
                let missing = world.call(&operation, who, &with(none.clone())).await;
                cells += 1;
                let is_same =
                    foreign.status == missing.status && foreign.text.replace(&theirs, &none) == missing.text;
                assert!(is_same, "{} by {who:?}: {} but {}", operation.name, foreign.text, missing.text);
                let is_refused = matches!(Verdict::of(&foreign), Verdict::Missing | Verdict::Denied);
                assert!(is_refused, "{} by {who:?}: {}", operation.name, foreign.text);
                same += 1;
            }
        }
    }
    println!("foreign ids: {same} of {cells}");
}
