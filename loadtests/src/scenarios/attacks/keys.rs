//! API keys that are none.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    super::deleted_key::{create, last_accepted_after, status, text},
    Found, Row,
};
use crate::{
    figures::ms,
    http::Connection,
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

pub(super) fn with_authorization(model: &Model, authorization: Option<&str>) -> Vec<u8> {
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
    vec![
        expired(server, model).await,
        deleted(server, model).await,
        alike(model).await,
        too_many(model).await,
    ]
}

/// Who is refused does not learn why.
async fn alike(model: &Model) -> Found {
    let mut bodies = BTreeSet::new();
    let mut refusals = 0;
    // An absent key may be told from a wrong one.
    for row in rows(model).into_iter().skip(2) {
        let mut connection = Connection::open(&model.host).await.expect("the server accepts");
        if let Ok(answer) = connection.exchange(&row.bytes).await {
            bodies.insert(answer.body);
            refusals += 1;
        }
    }
    let faults = match bodies.len() {
        1 => vec![],
        _ => vec![format!("{:?}", bodies.iter().map(|b| String::from_utf8_lossy(b)).collect::<Vec<_>>())],
    };
    Found::new("API key: refusals look alike", format!("{} kinds of {refusals}", bodies.len()), faults)
}

/// An address that comes with wrong keys is slowed down, and a good key from there is served all the while.
async fn too_many(model: &Model) -> Found {
    const ATTEMPTS: usize = 300;
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
    let (mut refused, mut slowed, mut faults) = (0, 0, Vec::new());
    let mut bad = Connection::open_from(ADDRESS, &model.host).await.expect("the server accepts");
    for number in 0..ATTEMPTS {
        let bytes = with_authorization(model, Some(&format!("Bearer mgk_a.b.{number}")));
        match bad.exchange(&bytes).await.map_or(0, |answer| answer.status) {
            401 => refused += 1,
            429 => slowed += 1,
            other => faults.push(format!("a wrong key was answered with {other}")),
        }
        if number % 30 == 0 {
            let mut good = Connection::open_from(ADDRESS, &model.host).await.expect("the server accepts");
            let bytes = with_authorization(model, Some(&format!("Bearer {}", model.api_key)));
            if !good.exchange(&bytes).await.is_ok_and(|answer| answer.status == 200) {
                faults.push("a good key from the same address was refused".to_owned());
            }
        }
    }
    if slowed == 0 {
        faults.push("must be slowed down".to_owned());
    }
    Found::new("API key: 300 wrong ones from one address", format!("{refused} × 401, {slowed} × 429"), faults)
}

async fn expired(server: &Server, model: &Model) -> Found {
    let ends = SystemTime::now() + Duration::from_secs(4);
    let ends_s = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let key = create(server, &["--expires", &rfc3339(ends_s)]);
    let holder = model.with_key(text(&key, "api_key"));
    let before = status(&holder).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after = status(&holder).await;
    let faults = if (before, after) == (200, 401) { vec![] } else { vec!["must be 200, 401".to_owned()] };
    Found::new("API key: one that has ended", format!("{before} before, {after} after"), faults)
}

async fn deleted(server: &Server, model: &Model) -> Found {
    let (text, faults) = match last_accepted_after(server, model).await {
        Ok(last) if last <= Duration::from_secs(1) => (format!("last accepted after {}", ms(last)), vec![]),
        Ok(last) => (format!("last accepted after {}", ms(last)), vec!["must be within 1 s".to_owned()]),
        Err(fault) => ("not refused in time".to_owned(), vec![fault]),
    };
    Found::new("API key: a deleted one", text, faults)
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

pub(super) fn base64url(bytes: &[u8]) -> String {
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
