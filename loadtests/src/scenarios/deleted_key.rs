//! A key is deleted while it is used: until when calls with it are accepted.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    http::{Connection, request},
    server::{Model, Server},
};

/// For how long it is tried before it is said to go on for ever.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Between two looks at a refused key.
const AFTER: Duration = Duration::from_millis(50);

/// Creates a key and deletes it; how long after the deletion's answer the last accepted call was sent.
pub(super) async fn last_accepted_after(server: &Server, model: &Model) -> Result<Duration, String> {
    let key = create(server, &[]);
    let holder = model.with_key(text(&key, "api_key"));
    let before = status(&holder).await;
    if before != 200 {
        return Err(format!("a new key was answered with {before}"));
    }
    let path = format!("/api/v2/users/{}/v2_keys/{}", text(&key, "username"), text(&key, "key_id"));
    server.ask("DELETE", &path, &model.api_key).ok_or("the key could not be deleted")?;
    let deleted = Instant::now();
    let mut last = Duration::ZERO;
    while deleted.elapsed() < TIME_MAX {
        let sent = deleted.elapsed();
        match status(&holder).await {
            200 => last = sent,
            401 => return stays_refused(&holder).await.map(|()| last),
            other => return Err(format!("a call with it was answered with {other}")),
        }
    }
    Err(format!("still accepted after {TIME_MAX:?}"))
}

/// A few times and no more, for an address whose keys fail too often is answered otherwise.
async fn stays_refused(holder: &Model) -> Result<(), String> {
    for _ in 0..3 {
        tokio::time::sleep(AFTER).await;
        let again = status(holder).await;
        if again != 401 {
            return Err(format!("answered with {again} after it was refused"));
        }
    }
    Ok(())
}

/// Creates an API key; what the command said.
pub(super) fn create(server: &Server, options: &[&str]) -> Value {
    let args = [&["--json", "key", "create"], options].concat();
    serde_json::from_str(&server.millgate(&args)).expect("`--json` prints JSON")
}

/// A field of what was said about a key.
pub(super) fn text(key: &Value, field: &str) -> String {
    key[field].as_str().unwrap_or("admin").to_owned()
}

/// The status of a call on a connection of its own; 0 is no answer.
pub(super) async fn status(model: &Model) -> u16 {
    let bytes = request(&model.host, "/model", &model.api_key, &model.body(r#"{"n":1}"#));
    let Ok(mut connection) = Connection::open(&model.host).await else { return 0 };
    connection.exchange(&bytes).await.map_or(0, |answer| answer.status)
}
