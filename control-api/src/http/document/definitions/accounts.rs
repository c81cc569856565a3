//! Users and keys.

use super::{
    Definition,
    Kind::{Flag, Text, Texts, Time},
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
            field("created_at", Time, ""),
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
