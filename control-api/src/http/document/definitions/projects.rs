//! Projects, their files and who works in them.

use super::{
    Definition,
    Kind::{Flag, Integer, Of, Text, Time, Variables, Wide},
    field,
};

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "SetServerEnvironmentRequest",
        fields: &[field("environment", Variables, "in the place of those there are")],
    },
    Definition {
        name: "ServerEnvironment",
        fields: &[field("environment", Text, "variables of all models: a JSON object as text")],
    },
    Definition {
        name: "CreateProjectRequest",
        fields: &[
            field("name", Text, "none of its owner's other projects has it"),
            field("description", Text, ""),
            field("visibility", Text, "`public`, `organization` or `private`"),
            field("parent_project", Text, "a project whose files it begins with"),
            field(
                "git_url",
                Text,
                "a repository whose files it begins with: `https` or `http`, a user and password in it are used once and not kept",
            ),
            field("git_ref", Text, "a branch, a tag or a commit; without one the repository's own default"),
            field("template", Text, "`Python` for a first example; `blank`, `local` or `git` for none"),
            field("organization_permission", Text, "means nothing here"),
            field("default_project_engine_type", Text, "`ml_runtime`"),
            field("environment", Variables, "variables of every build and replica"),
            field("shared_memory_limit", Integer, "kept, and means nothing here"),
            field("team_name", Text, "the team that owns it; the caller unless given"),
        ],
    },
    Definition {
        name: "Project",
        fields: &[
            field("id", Text, "four groups of four characters"),
            field("name", Text, ""),
            field("owner", Of("ShortUser"), "a user or a team"),
            field("creator", Of("ShortUser"), ""),
            field("description", Text, ""),
            field("visibility", Text, "`public`, `organization` or `private`"),
            field("default_engine_type", Text, ""),
            field("created_at", Time, ""),
            field("updated_at", Time, ""),
            field("creation_status", Text, "`success`"),
            field("permissions", Of("ProjectPermissions"), "the caller's"),
            field("shared_memory_limit", Integer, ""),
            field("environment", Text, "a JSON object as text, shown to contributors"),
            field("ephemeral_storage_request", Integer, "0"),
            field("ephemeral_storage_limit", Integer, "0"),
        ],
    },
    Definition {
        name: "ProjectPermissions",
        fields: &[
            field("read", Flag, ""),
            field("write", Flag, ""),
            field("admin", Flag, ""),
            field("business_user", Flag, "false"),
            field("operator", Flag, ""),
            field("inherit", Flag, "false"),
        ],
    },
    Definition {
        name: "ProjectFile",
        fields: &[
            field("path", Text, "relative to the project's root"),
            field("is_dir", Flag, ""),
            field("file_size", Wide, "bytes"),
        ],
    },
    Definition {
        name: "ProjectFileMetadata",
        fields: &[
            field("path", Text, "the new path"),
            field("name", Text, "means nothing here"),
            field("type", Text, "means nothing here"),
            field("is_dir", Flag, "means nothing here"),
            field("file_size", Wide, "means nothing here"),
            field("project_id", Text, "means nothing here"),
        ],
    },
    Definition {
        name: "ReplaceProjectSourceResponse",
        fields: &[field("files", Integer, "files there are now"), field("bytes", Integer, "in all")],
    },
    Definition {
        name: "Collaborator",
        fields: &[
            field("user", Of("ShortUser"), ""),
            field("permission", Text, "`viewer`, `operator`, `contributor` or `admin`"),
        ],
    },
    Definition {
        name: "AddProjectCollaboratorRequest",
        fields: &[
            field("permission", Text, "`viewer`, `operator`, `contributor` or `admin`"),
            field("username", Text, "that of the path counts"),
            field("project_id", Text, "that of the path counts"),
        ],
    },
];
