//! Bodies that are not calls.

use super::Row;
use crate::{http::request, server::Model};

pub(super) fn rows(model: &Model) -> Vec<Row> {
    let key = &model.access_key;
    let with = |value: &str| model.body(value).into_bytes();
    let nested = |depth: usize| with(&("[".repeat(depth) + &"]".repeat(depth)));
    let whole = with(r#"{"a":1}"#);
    let mut invalid_utf8 = with("\"?\"");
    let at = invalid_utf8.iter().position(|b| *b == b'?').expect("it was put there");
    invalid_utf8[at] = 0xff;
    let malformed: Vec<(&str, Vec<u8>)> = vec![
        ("an empty body", Vec::new()),
        ("a truncated body", whole[..whole.len() - 1].to_vec()),
        ("bytes behind the object", [&whole[..], b"x"].concat()),
        ("two objects", [&whole[..], &whole[..]].concat()),
        ("a list", b"[1]".to_vec()),
        ("a number", b"1".to_vec()),
        ("no request", format!(r#"{{"accessKey":"{key}"}}"#).into_bytes()),
        (
            "accessKey twice",
            format!(r#"{{"accessKey":"{key}","accessKey":"{key}","request":1}}"#).into_bytes(),
        ),
        ("request twice", format!(r#"{{"accessKey":"{key}","request":1,"request":2}}"#).into_bytes()),
        (
            "request twice, once escaped",
            format!(r#"{{"accessKey":"{key}","request":1,"re\u0071uest":2}}"#).into_bytes(),
        ),
        ("129 levels", nested(128)),
        ("100,000 levels", nested(100_000)),
        ("NaN", with("NaN")),
        ("Infinity", with("[Infinity]")),
        ("-Infinity", with("[-Infinity]")),
        ("a number with a leading zero", with("01")),
        ("a lone high surrogate", with(r#""\ud800""#)),
        ("a lone low surrogate", with(r#""\udc00""#)),
        ("invalid UTF-8", invalid_utf8),
        ("a byte order mark", [&b"\xef\xbb\xbf"[..], &whole].concat()),
        ("UTF-16", model.body("1").encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a control character in a string", with("\"\u{1}\"")),
        ("a NUL behind a value", with("1\0")),
        ("single quotes", with("'a'")),
        ("a comma too many", with("[1,]")),
        ("a comment", with("1/**/")),
        ("a number of 5,000 digits", with(&"1".repeat(5_000))),
    ];
    let mut rows: Vec<Row> = malformed
        .into_iter()
        .map(|(name, body)| Row {
            name: format!("JSON: {name}"),
            bytes: [&head(model, body.len())[..], &body].concat(),
            statuses: vec![400],
            closes: false,
            runs: 0,
        })
        .collect();
    rows.push(Row {
        name: "JSON: 128 levels are taken".to_owned(),
        bytes: [head(model, nested(127).len()), nested(127)].concat(),
        statuses: vec![200],
        closes: false,
        runs: 1,
    });
    rows.push(Row {
        name: "a wrong access key".to_owned(),
        bytes: request(&model.host, "/model", &model.api_key, r#"{"accessKey":"m0","request":1}"#),
        statuses: vec![401],
        closes: false,
        runs: 0,
    });
    rows
}

fn head(model: &Model, body_bytes: usize) -> Vec<u8> {
    format!(
        "POST /model HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {body_bytes}\r\n\r\n",
        model.host, model.api_key
    )
    .into_bytes()
}
