//! What must hold of any bytes that come from outside, asked of two who should agree: us, and whoever reads the same
//! bytes after us or instead of us. Each takes any bytes and panics where the two differ. For the fuzz targets in
//! `gateway/fuzz` (`make fuzz`), and for the tests below, which `make test` runs: they replay the seeds, whole and damaged.
//! What a fuzzer finds becomes a seed. No part of a gateway.

use std::collections::HashSet;

use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header as TokenHeader};
use millgate_contract::{
    frame::{HEADER_BYTES, Header},
    limits::HEADERS_MAX,
    route::{RouteSnapshot, Verification, VerifyingKey},
};
use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::Value;

use crate::{
    gate::{Head, HeadScan, Length},
    keys::{KeyRing, Look, PREFIX},
    split::split,
};

/// The moment at which keys are looked at, in Unix seconds.
const NOW_S: u64 = 1_800_000_000;
/// PKCS #8 (RFC 8410) of an Ed25519 key, up to its 32 bytes.
const PKCS8_BEGIN: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const SEED: [u8; 32] = [7; 32];

/// A head that passes the gate is read alike by `httparse`, hyper's parser, and the verdict does not depend on how the
/// bytes arrive.
pub fn head(bytes: &[u8]) {
    let whole = HeadScan::default().advance(bytes);
    let mut parts = HeadScan::default();
    let (third, half) = (bytes.len() / 3, bytes.len() / 2);
    let told = [third, half, bytes.len()].iter().find_map(|until| match parts.advance(&bytes[..*until]) {
        Ok(None) => None,
        verdict => Some(verdict),
    });
    assert_eq!(told.unwrap_or(Ok(None)), whole, "the same bytes in three reads and in one");
    if let Ok(Some(passed)) = whole {
        is_read_alike(&bytes[..passed.bytes], passed);
    }
}

fn is_read_alike(head: &[u8], passed: Head) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let read = request.parse(head);
    assert_eq!(read, Ok(httparse::Status::Complete(head.len())), "the gate lets pass what hyper does not");
    let of = |name: &str| -> Vec<&[u8]> {
        request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value).collect()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let theirs = match (&lengths[..], &codings[..]) {
        ([], []) => Length::Unsaid,
        ([one], []) => {
            let text = std::str::from_utf8(one).expect("digits");
            Length::Bytes(text.trim_matches([' ', '\t']).parse().expect("a number"))
        }
        ([], [one]) if one.trim_ascii().eq_ignore_ascii_case(b"chunked") => Length::Chunked,
        several => panic!("a body's length has several readings: {several:?}"),
    };
    assert_eq!(passed.length, theirs);
    let hosts = of("host").len();
    assert!(hosts == 1 || (hosts == 0 && request.version == Some(0)), "{hosts} hosts");
    assert!(!(passed.length == Length::Chunked && request.version == Some(0)), "chunks in HTTP/1.0");
}

/// A body is split as `serde_json` would, where it has an opinion.
pub fn body(bytes: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(rename = "accessKey", default)]
        access_key: Option<Value>,
        #[serde(borrow)]
        request: &'a serde_json::value::RawValue,
    }
    let ours = split(bytes);
    // `RawValue` alone skips over what a tree refuses (lone surrogates).
    let tree = serde_json::from_slice::<Value>(bytes);
    // serde_json refuses numbers that no double holds, which is Python's own question, and one level of nesting less.
    let has_no_opinion = tree.as_ref().is_err_and(|error| {
        let said = error.to_string();
        said.starts_with("number out of range") || said.starts_with("recursion limit exceeded")
    });
    if has_no_opinion {
        return;
    }
    // To serde an array of two is a `Body` as well.
    let theirs = match tree {
        Ok(Value::Object(_)) => serde_json::from_slice::<Body<'_>>(bytes),
        Ok(_) => Err(serde::de::Error::custom("it is not an object")),
        Err(error) => Err(error),
    };
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(&bytes[ours.request], theirs.request.get().as_bytes());
            assert_eq!(ours.access_key.as_deref(), theirs.access_key.as_ref().and_then(Value::as_str));
        }
        (Ok(_), Err(error)) => panic!("we split what is no call: {error}"),
        // An access key is text or is not there; to serde it may be anything.
        (Err(_), Ok(theirs)) if !theirs.access_key.as_ref().is_some_and(Value::is_string) => {
            assert!(has_access_key(bytes), "we refuse what is a call");
        }
        (Err(ours), Ok(_)) => panic!("we refuse what is a call: {ours}"),
        (Err(_), Err(_)) => {}
    }
}

fn has_access_key(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|body| body.get("accessKey").is_some())
}

/// No text is a key that was not signed; of signed claims, those pass that say what they must, read without our types.
pub fn key(bytes: &[u8]) {
    let ring = ring();
    let is_good = |key: &str| match ring.look(key, NOW_S, &HashSet::default()) {
        Look::Good(_) => panic!("nothing is known yet"),
        Look::Bad => false,
        Look::Unknown(token) => ring.verify(token, NOW_S, &HashSet::default()).is_ok(),
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(!is_good(text) && !is_good(&format!("{PREFIX}{text}")), "nobody signed this");
    let Ok(claims) = serde_json::from_str::<Value>(text) else { return };
    let header = TokenHeader { kid: Some("1".into()), ..TokenHeader::new(Algorithm::EdDSA) };
    let signing = EncodingKey::from_ed_der(&[&PKCS8_BEGIN[..], &SEED].concat());
    let Ok(token) = jsonwebtoken::encode(&header, &claims, &signing) else { return };
    let is_short = token.len() <= crate::keys::TOKEN_BYTES_MAX;
    assert_eq!(is_good(&format!("{PREFIX}{token}")), is_short && says_what_it_must(&claims), "{claims}");
}

fn says_what_it_must(claims: &Value) -> bool {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let is_for_api = match claims.get("aud") {
        Some(Value::String(one)) => one == "API",
        Some(Value::Array(several)) => {
            several.iter().all(Value::is_string) && several.iter().any(|one| one == "API")
        }
        _ => false,
    };
    let begins = claims.get("nbf").map_or(Some(0), Value::as_u64);
    claims.is_object()
        && text("iss") == Some("millgate")
        && text("sub").is_some()
        && text("jti").is_some()
        && is_for_api
        && claims.get("exp").and_then(Value::as_u64).is_some_and(|exp| exp > NOW_S)
        && begins.is_some_and(|nbf| nbf <= NOW_S)
}

fn ring() -> KeyRing {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any 32 bytes are a seed");
    let ed25519 = hex(pair.public_key().as_ref());
    let verification = Verification {
        issuer: "millgate".into(),
        api_keys: vec![VerifyingKey { kid: "1".into(), ed25519 }],
        access_key_digest_key: "11".repeat(32),
    };
    KeyRing::new(&verification, 4).expect("a public key of 32 bytes")
}

/// What a replica sends is refused or is a frame, and a frame that is written again is the same frame.
pub fn frames(mut bytes: &[u8]) {
    while let Some((raw, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(raw) else { return };
        let Some((payload, rest)) = rest.split_at_checked(header.payload_bytes) else { return };
        bytes = rest;
        let Ok(frame) = header.decode_payload(Bytes::copy_from_slice(payload)) else { return };
        let Some(frame) = frame else { continue };
        let written = frame.encode();
        let (raw, payload) = written.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
        let again = Header::decode(raw).expect("what we write is a header");
        assert_eq!(again.decode_payload(Bytes::copy_from_slice(payload)), Ok(Some(frame)));
    }
}

/// Bytes without their checksum are no snapshot; a snapshot that is sealed again is the same, and one byte more is none.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(opened) = RouteSnapshot::open(bytes) {
        assert_eq!(RouteSnapshot::open(&opened.seal()).ok(), Some(opened));
    }
    let sum = hex(digest(&SHA256, bytes).as_ref());
    let mut sealed = [sum.as_bytes(), b"\n", bytes].concat();
    if let Ok(opened) = RouteSnapshot::open(&sealed) {
        let again = RouteSnapshot::open(&opened.seal()).expect("what we seal can be opened");
        assert_eq!(again, opened);
        sealed.push(b' ');
        assert!(RouteSnapshot::open(&sealed).is_err(), "the checksum is of every byte");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::prelude::*;

    use super::*;

    type Oracle = (&'static str, fn(&[u8]));

    const TARGETS: [Oracle; 5] =
        [("head", head), ("body", body), ("key", key), ("frames", frames), ("snapshot", snapshot)];

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[test]
    fn every_seed_holds() {
        for (target, holds) in TARGETS {
            let seeds = seeds(target);
            assert!(seeds.len() >= 3, "{target} has {} seeds", seeds.len());
            for seed in &seeds {
                holds(seed);
            }
        }
    }

    /// What a fuzzer without eyes does: a seed with some bytes changed, put in, taken out, or said twice.
    fn damaged(seed: &[u8], blows: &[(usize, u8, u8)]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for (at, kind, byte) in blows {
            let at = at % (bytes.len() + 1);
            match kind % 5 {
                0 if at < bytes.len() => bytes[at] = *byte,
                1 => bytes.insert(at, *byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => bytes.extend_from_within(at..(at + usize::from(*byte)).min(bytes.len())),
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn every_damaged_seed_holds(
            which in any::<prop::sample::Index>(),
            blows in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
        ) {
            for (target, holds) in TARGETS {
                let seeds = seeds(target);
                holds(&damaged(&seeds[which.index(seeds.len())], &blows));
            }
        }
    }
}
