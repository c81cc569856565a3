//! What is done the same way by more than one door.

use millgate_contract::ids::{KeyId, Username};
use serde_json::json;

use crate::{
    app::App,
    fault::Outcome,
    keys::api_key::{self, Claims, ISSUER},
    moment::{now_s, now_us},
    names,
    rows::Key,
};

/// Makes an API key; answers what is kept of it and the key itself.
pub(crate) async fn make_key(
    app: &App,
    username: &Username,
    audiences: Vec<String>,
    comments: String,
    expires_s: i64,
) -> Outcome<(Key, String)> {
    let key = Key {
        key_id: KeyId::new(names::uuid()),
        username: username.clone(),
        comments,
        audiences: json!(audiences).to_string(),
        created_us: now_us(),
        expires_s,
        deleted_us: 0,
    };
    app.store.insert_key(&key).await?;
    let claims = Claims {
        iss: ISSUER.to_owned(),
        sub: username.clone(),
        aud: audiences,
        exp: expires_s,
        iat: now_s(),
        jti: key.key_id.clone(),
    };
    Ok((key, api_key::sign(&app.custody, &claims)))
}
