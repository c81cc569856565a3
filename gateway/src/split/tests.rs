use proptest::prelude::*;

use super::*;

fn key_and_request(body: &str) -> (Option<String>, &str) {
    let split = split(body.as_bytes()).unwrap();
    (split.access_key.map(Cow::into_owned), &body[split.request])
}

#[test]
fn key_and_request_are_found_in_any_order_and_request_is_left_raw() {
    assert_eq!(
        key_and_request(r#"{"accessKey": "mk", "request": {"a": [1, 2.5e3]} }"#),
        (Some("mk".into()), r#"{"a": [1, 2.5e3]}"#)
    );
    assert_eq!(
        key_and_request(" {\"request\":[{}],\"x\":{\"request\":1},\"accessKey\":\"mk\"}\n"),
        (Some("mk".into()), "[{}]")
    );
    assert_eq!(key_and_request(r#"{"request":null}"#), (None, "null"));
}

#[test]
fn keys_written_with_escapes_are_the_same_keys() {
    assert_eq!(key_and_request(r#"{"\u0061ccessKey":"\u006dk","request":1}"#), (Some("mk".into()), "1"));
    assert!(split(br#"{"accessKey":"a","access\u004bey":"b","request":1}"#).is_err());
}

#[test]
fn each_malformed_body_is_told_what_is_wrong_and_where() {
    let deep = format!(r#"{{"request":{}1{}}}"#, "[".repeat(128), "]".repeat(128));
    let bodies: Vec<&[u8]> = vec![
        b"",
        b"[]",
        b"8",
        b"{",
        br#"{"request""#,
        br#"{"request":"#,
        br#"{"request":1"#,
        br#"{"request":1,"#,
        br#"{"request":1,}"#,
        br#"{"request":1}x"#,
        br#"{"request":1}{}"#,
        br"{}",
        br#"{"accessKey":"m"}"#,
        br#"{"accessKey":7,"request":1}"#,
        br#"{"request":1,"request":1}"#,
        br#"{"accessKey":"m","accessKey":"m","request":1}"#,
        br#"{"request":NaN}"#,
        br#"{"request":[-Infinity]}"#,
        br#"{"request":Infinity}"#,
        br#"{"request":01}"#,
        br#"{"request":1.}"#,
        br#"{"request":1e}"#,
        br#"{"request":-}"#,
        br#"{"request":+1}"#,
        br#"{"request":tru}"#,
        br#"{"request":[1}"#,
        br#"{"request":{"a" 1}}"#,
        br#"{"request":{a:1}}"#,
        br#"{"request":"a"#,
        b"{\"request\":\"a\nb\"}",
        br#"{"request":"\x"}"#,
        br#"{"request":"\u12"}"#,
        br#"{"request":"\ud800"}"#,
        br#"{"request":"\ud800\u0041"}"#,
        br#"{"request":"\udc00"}"#,
        b"{\"request\":\"\xff\"}",
        b"\xEF\xBB\xBF{\"request\":1}",
        deep.as_bytes(),
    ];
    let told: Vec<String> = bodies
        .iter()
        .map(|body| {
            let shown: String = String::from_utf8_lossy(body).chars().take(50).collect();
            format!("{shown:?}: {}", split(body).unwrap_err())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_limit_of_depth_is_128_levels_with_the_outer_object() {
    let nested = |levels: usize| format!(r#"{{"request":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(split(nested(127).as_bytes()).is_ok());
    assert!(split(nested(128).as_bytes()).is_err());
    let objects = format!(r#"{{"request":{}1{}}}"#, r#"{"a":"#.repeat(127), "}".repeat(127));
    assert!(split(objects.as_bytes()).is_ok());
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let body = r#"{"accessKey":"mé","request":{"a":[1,-2.5e-3,true,null,"x\n\ud83d\ude00"],"b":{}}}"#;
    assert!(split(body.as_bytes()).is_ok());
    for cut in 0..body.len() {
        assert!(split(&body.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}

/// Values that `serde_json` judges by the same rules: its own depth limit and its refusal of huge numbers are kept out.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        (-1e9..1e9_f64).prop_map(|n| format!("{n:e}")),
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "[ -~]{0,40}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        Just(r#""\ud83d\ude00\u00e9\/""#.to_owned()),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(" , "))),
            proptest::collection::vec(("[a-z]{0,3}", inner), 0..6).prop_map(|v| {
                let members: Vec<String> = v.into_iter().map(|(k, v)| format!("\"{k}\" :{v}")).collect();
                format!("{{{}}}", members.join(",\n"))
            }),
        ]
    })
}

fn serde_says(body: &[u8]) -> Option<(Option<String>, String)> {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(rename = "accessKey", default)]
        access_key: Option<String>,
        #[serde(borrow)]
        request: &'a serde_json::value::RawValue,
    }
    // `RawValue` alone skips over what a tree refuses (lone surrogates).
    serde_json::from_slice::<serde_json::Value>(body).ok()?;
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Some((body.access_key, body.request.get().to_owned()))
}

fn we_say(body: &[u8]) -> Option<(Option<String>, String)> {
    let split = split(body).ok()?;
    let request = std::str::from_utf8(&body[split.request]).unwrap().to_owned();
    Some((split.access_key.map(Cow::into_owned), request))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn well_formed_bodies_are_split_as_serde_would(value in json(), other in json(), key in any::<String>()) {
        let key = serde_json::to_string(&key).unwrap();
        let body = format!(r#"{{"other":{other}, "request" : {value}, "accessKey":{key}}}"#);
        let ours = we_say(body.as_bytes());
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, serde_says(body.as_bytes()));
    }

    #[test]
    fn damaged_bodies_are_judged_as_serde_would(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3) {
        let mut body = format!(r#"{{"accessKey":"mk","request":{value}}}"#).into_bytes();
        let at = at.index(body.len());
        match kind {
            0 => body[at] = byte,
            1 => body.insert(at, b"\"\\{}[],:0e-. u"[usize::from(byte) % 14]),
            _ => { body.remove(at); }
        }
        let theirs = serde_says(&body);
        // serde_json refuses numbers that overflow a double, which Python's own question is.
        let is_number_too_large = serde_json::from_slice::<serde_json::Value>(&body)
            .is_err_and(|e| e.to_string().starts_with("number out of range"));
        // A key damaged into `null` is an absent one to serde.
        prop_assume!(!is_number_too_large);
        prop_assert_eq!(we_say(&body), theirs, "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn any_bytes_are_judged_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = split(&body);
    }
}
