//! Users and keys.

use super::{
    Definition,
    Kind::{Any, Flag, Integer, List, Text, Texts, Time},
    field,
};

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "ShortUser",
        fields: &[field("username", Text, ""), field("name", Text, ""), field("email", Text, "")],
    },
    Definition {
        name: "User",
        fields: &[
            field("username", Text, ""),
            field("name", Text, ""),
            field("email", Text, ""),
            field("role", Text, "`user` or `administrator`"),
            field("kind", Text, "`person` or `service`"),
            field("is_disabled", Flag, "may not come in; what they made goes on"),
            field("has_password", Flag, ""),
            field("created_at", Time, ""),
        ],
    },
    Definition {
        name: "CreateUserRequest",
        fields: &[
            field("username", Text, "never given to another again"),
            field("name", Text, "the username unless given"),
            field("email", Text, ""),
            field("role", Text, "`user` or `administrator`"),
            field("kind", Text, "`person`, or `service` for a program"),
            field("password", Text, "none unless given"),
        ],
    },
    Definition {
        name: "SetPasswordRequest",
        fields: &[
            field("password", Text, "12 to 1000 characters"),
            field("current_password", Text, "one's own, where there is one"),
        ],
    },
    Definition { name: "LoginRequest", fields: &[field("username", Text, ""), field("password", Text, "")] },
    Definition {
        name: "Team",
        fields: &[
            field("name", Text, ""),
            field("description", Text, ""),
            field("members", List("Collaborator"), ""),
            field("created_at", Time, ""),
        ],
    },
    Definition {
        name: "CreateTeamRequest",
        fields: &[field("name", Text, "of one space with users' names"), field("description", Text, "")],
    },
    Definition {
        name: "AddTeamMemberRequest",
        fields: &[field("permission", Text, "`viewer`, `operator`, `contributor` or `admin`")],
    },
    Definition {
        name: "AuditEntry",
        fields: &[
            field("number", Integer, "grows by one"),
            field("at", Time, ""),
            field("username", Text, "empty is the server itself"),
            field("address", Text, "where it came from"),
            field("operation", Text, "as in this document"),
            field("object", Text, "its path"),
            field("project_id", Text, ""),
            field("status", Integer, "of HTTP; 0 of the server's own doing"),
            field("message", Text, "why it was refused, or failed"),
            field("details", Any, "inputs and outputs, secrets left out"),
        ],
    },
    Definition {
        name: "V2Key",
        fields: &[
            field("key_id", Text, ""),
            field("username", Text, ""),
            field("comments", Text, ""),
            field("audiences", Texts, "`API`, `Application`"),
            field("created_at", Time, ""),
            field("expiry_date", Time, ""),
        ],
    },
    Definition {
        name: "CreateV2KeyRequest",
        fields: &[
            field("username", Text, "that of the path counts"),
            field("expiry_date", Time, "as late as this server allows unless given"),
            field("comments", Text, ""),
            field("audiences", Texts, "`API` unless given"),
        ],
    },
    Definition {
        name: "CreateV2KeyResponse",
        fields: &[
            field("api_key", Text, "shown only this once"),
            field("key_id", Text, ""),
            field("username", Text, ""),
            field("comments", Text, ""),
            field("audiences", Texts, ""),
            field("created_at", Time, ""),
            field("expiry_date", Time, ""),
        ],
    },
    Definition { name: "ValidateApiKeyV2Request", fields: &[field("audience", Text, "`API` unless given")] },
    Definition {
        name: "ValidateApiKeyV2Response",
        fields: &[
            field("valid", Flag, ""),
            field("username", Text, ""),
            field("message", Text, "why it is not good"),
        ],
    },
];
