//! API keys that are none.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Found, Row, call};
use crate::{
    figures::ms,
    http::{Connection, request},
    server::{Model, Server},
};

/// Keys that never were good.
pub(super) fn rows(model: &Model) -> Vec<Row> {
    let key = &model.api_key;
    let jwt = key.strip_prefix("mgk_").expect("keys begin so");
    let parts: Vec<&str> = jwt.split('.').collect();
    let (claims, signature) = (parts[1], parts[2]);
    let forged = |header: Value, claims: &str, signature: &str| {
        format!("Bearer mgk_{}.{claims}.{signature}", base64url(header.to_string().as_bytes()))
    };
    let header: Value = json!({"typ": "JWT", "alg": "EdDSA", "kid": "1"});
    let also = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let other_claims =
        base64url(br#"{"iss":"millgate","sub":"root","aud":["API"],"exp":9999999999,"jti":"x"}"#);
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let mut spoiled = signature.to_owned().into_bytes();
    spoiled[10] = if spoiled[10] == b'A' { b'B' } else { b'A' };
    let spoiled = String::from_utf8(spoiled).expect("letters are replaced by letters");
    let cases = [
        ("none", None),
        ("another scheme", Some(format!("Basic {key}"))),
        ("an empty one", Some("Bearer ".to_owned())),
        ("not one", Some("Bearer letmein".to_owned())),
        ("without its prefix", Some(format!("Bearer {jwt}"))),
        ("with a spoiled signature", Some(format!("Bearer mgk_{}.{claims}.{spoiled}", parts[0]))),
        ("without its signature", Some(format!("Bearer mgk_{}.{claims}.", parts[0]))),
        ("with other claims", Some(format!("Bearer mgk_{}.{other_claims}.{signature}", parts[0]))),
        ("alg none", Some(forged(also("alg", json!("none")), &other_claims, ""))),
        ("alg HS256", Some(forged(also("alg", json!("HS256")), &other_claims, signature))),
        ("another kid", Some(forged(also("kid", json!("../1")), claims, signature))),
        ("a jku", Some(forged(also("jku", json!("http://127.0.0.1/keys")), claims, signature))),
        ("a jwk", Some(forged(also("jwk", jwk), claims, signature))),
        ("of 30,000 bytes", Some(format!("Bearer mgk_{}", "a".repeat(30_000)))),
    ];
    cases
        .into_iter()
        .map(|(name, authorization)| Row {
            name: format!("API key: {name}"),
            bytes: with_authorization(model, authorization.as_deref()),
            statuses: vec![401],
            closes: false,
            runs: 0,
        })
        .collect()
}

fn with_authorization(model: &Model, authorization: Option<&str>) -> Vec<u8> {
    let body = model.body("1");
    let line = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    format!(
        "POST /model HTTP/1.1\r\nHost: {}\r\n{line}Content-Length: {}\r\n\r\n{body}",
        model.host,
        body.len()
    )
    .into_bytes()
}

/// Keys that were good.
pub(super) async fn over_time(server: &Server, model: &Model) -> Vec<Found> {
    vec![expired(server, model).await, deleted(server, model).await]
}

async fn expired(server: &Server, model: &Model) -> Found {
    let ends = SystemTime::now() + Duration::from_secs(4);
    let ends_s = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = create(server, &["--expires", &rfc3339(ends_s)]);
    let holder = Model { api_key: text(&key, "api_key"), ..model.clone() };
    let before = status(&holder).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after = status(&holder).await;
    let faults = if (before, after) == (200, 401) { vec![] } else { vec!["must be 200, 401".to_owned()] };
    Found::new("API key: one that has ended", format!("{before} before, {after} after"), faults)
}

async fn deleted(server: &Server, model: &Model) -> Found {
    let key = create(server, &[]);
    let holder = Model { api_key: text(&key, "api_key"), ..model.clone() };
    let before = status(&holder).await;
    let path = format!("/api/v2/users/{}/v2_keys/{}", text(&key, "username"), text(&key, "key_id"));
    let mut delete = request(&model.host, &path, &model.api_key, "");
    delete.splice(..b"POST".len(), *b"DELETE");
    let mut faults = Vec::new();
    match Connection::open(&model.host).await {
        Ok(mut connection) => match connection.exchange(&delete).await {
            Ok(answer) if answer.status == 200 => {}
            other => faults.push(format!("not deleted: {other:?}")),
        },
        Err(error) => faults.push(error.to_string()),
    }
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    while status(&holder).await == 200 && begun.elapsed() < Duration::from_secs(3) {
        last = begun.elapsed();
    }
    if before != 200 || last > Duration::from_secs(1) {
        faults.push("must be 200, then 401 within 1 s".to_owned());
    }
    Found::new("API key: a deleted one", format!("{before}, last accepted after {}", ms(last)), faults)
}

async fn status(model: &Model) -> u16 {
    call(model, "1").await.map_or(0, |answer| answer.status)
}

fn create(server: &Server, options: &[&str]) -> Value {
    let args = [&["--json", "key", "create"], options].concat();
    serde_json::from_str(&server.millgate(&args)).expect("`--json` prints JSON")
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or("admin").to_owned()
}

/// Seconds since 1970 as a date and a time.
fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (mut year, mut day) = (1970, days);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3_600, of_day % 3_600 / 60, of_day % 60);
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for letter in 0..=group.len() {
            text.push(LETTERS[(word >> (18 - 6 * letter) & 63) as usize] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_base64url() {
        assert_eq!(
            ["f", "fo", "foo", "foob"].map(|t| base64url(t.as_bytes())),
            ["Zg", "Zm8", "Zm9v", "Zm9vYg"]
        );
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn seconds_have_their_date() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_210_096), "2024-02-29T12:34:56Z");
    }
}
