//! Whose word is taken for where a caller is.

use std::net::IpAddr;

use hyper::{HeaderMap, header::HeaderName};
use proptest::prelude::*;

use super::{
    ForwardedHeader, Network, Proxies,
    proxy_header::{Header, parse},
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_network_holds_what_begins_alike() {
    let ten: Network = "10.0.0.0/8".parse().unwrap();
    assert!(ten.contains(address("10.255.0.1")) && ten.contains(address("::ffff:10.1.1.1")));
    assert!(!ten.contains(address("11.0.0.1")) && !ten.contains(address("a00::1")));
    let all: Network = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains(address("1.2.3.4")) && !all.contains(address("::1")));
    let six: Network = "2001:db8::/32".parse().unwrap();
    assert!(six.contains(address("2001:db8:ffff::1")) && !six.contains(address("2001:db9::1")));
    let one: Network = "192.0.2.7".parse().unwrap();
    assert!(one.contains(address("192.0.2.7")) && !one.contains(address("192.0.2.8")));
    assert_eq!(one.to_string(), "192.0.2.7/32");
}

#[test]
fn what_is_not_a_network_is_named_and_bits_behind_the_prefix_are_asked_about() {
    for text in ["", "10.0.0.0/33", "::/129", "ten/8", "10.0.0.0/", "10.0.0.0/-1", "10/8"] {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
    let error = "10.1.2.3/8".parse::<Network>().unwrap_err();
    assert_eq!(error.to_string(), "`10.1.2.3/8` has bits behind its prefix: is `10.0.0.0/8` meant?");
}

fn caller(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
    let proxies =
        Proxies { http_networks: networks(&["10.0.0.0/8", "fd00::/8"]), header, ..Proxies::default() };
    let name = match header {
        ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        ForwardedHeader::Forwarded => HeaderName::from_static("forwarded"),
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, line.parse().unwrap());
    }
    proxies.caller(address(peer), &headers).0.to_string()
}

#[test]
fn the_caller_is_the_right_most_address_that_is_not_a_proxys() {
    let of = |peer, lines: &[&str]| caller(ForwardedHeader::XForwardedFor, peer, lines);
    assert_eq!(of("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
    // What the caller wrote itself is left of what was added.
    assert_eq!(of("10.0.0.1", &["1.1.1.1, 192.0.2.1"]), "192.0.2.1");
    assert_eq!(of("10.0.0.1", &["1.1.1.1, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
    assert_eq!(of("10.0.0.1", &["1.1.1.1", "192.0.2.1,10.0.0.2", "fd00::1"]), "192.0.2.1");
    assert_eq!(of("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
    assert_eq!(of("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
    // Nothing, or nothing that is an address: the last who is known.
    assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(of("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2");
    assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    // Of who is no proxy nothing is believed.
    assert_eq!(of("192.0.2.9", &["1.1.1.1"]), "192.0.2.9");
}

#[test]
fn forwarded_is_read_with_its_quotes() {
    let of = |lines: &[&str]| caller(ForwardedHeader::Forwarded, "10.0.0.1", lines);
    assert_eq!(of(&["for=192.0.2.1"]), "192.0.2.1");
    assert_eq!(of(&["for=1.1.1.1;proto=https, FOR=\"[2001:db8::1]:80\";by=10.0.0.1"]), "2001:db8::1");
    assert_eq!(of(&["for=192.0.2.1", "host=\"a,for=1.1.1.1\";for=10.0.0.2"]), "192.0.2.1");
    assert_eq!(of(&["for=192.0.2.1;host=\"a\\\"b,c\""]), "192.0.2.1");
    assert_eq!(of(&["for=192.0.2.1;for=1.1.1.1"]), "10.0.0.1");
    assert_eq!(of(&["for=_hidden"]), "10.0.0.1");
    // The other header is the caller's own.
    assert_eq!(caller(ForwardedHeader::XForwardedFor, "10.0.0.1", &[]), "10.0.0.1");
}

/// A header of version 2.
fn version_2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let length = u16::try_from(behind.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, behind].concat()
}

#[test]
fn both_versions_of_the_proxy_header_are_read() {
    let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 20]].concat();
    let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
    let with_extensions = [&four[..], &[0xee; 300]].concat();
    let cases: [(Vec<u8>, Option<&str>); 9] = [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(), Some("192.0.2.1")),
        (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec(), Some("2001:db8::1")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ff:: ff:: 1 2\r\n".to_vec(), None),
        (version_2(0x21, 0x11, &four), Some("192.0.2.1")),
        (version_2(0x21, 0x11, &with_extensions), Some("192.0.2.1")),
        (version_2(0x21, 0x21, &six), Some("2001:db8::1")),
        (version_2(0x20, 0x00, &[]), None),
        (version_2(0x21, 0x31, &[0; 216]), None),
    ];
    for (bytes, source) in cases {
        let header = Header { bytes: bytes.len(), source: source.map(address) };
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(None), "{bytes:?} to {end}");
        }
        assert_eq!(parse(&bytes), Ok(Some(header)));
        assert_eq!(parse(&[&bytes[..], b"GET / HTTP/1.1\r\n"].concat()), Ok(Some(header)));
    }
}

#[test]
fn what_is_nearly_a_proxy_header_is_malformed() {
    let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
    let cases: [Vec<u8>; 15] = [
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 100][..]].concat(),
        version_2(0x11, 0x11, &four),
        version_2(0x22, 0x11, &four),
        version_2(0x21, 0x12, &four),
        version_2(0x21, 0x11, &four[..11]),
    ];
    for bytes in cases {
        assert!(parse(&bytes).is_err(), "{}", String::from_utf8_lossy(&bytes));
    }
    // Said at once, not waited for.
    assert!(parse(&[b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x11, 0xff, 0xff][..]].concat()).is_err());
}

proptest! {
    #[test]
    fn a_verdict_on_a_proxy_header_does_not_change_with_what_comes_after(
        begin in prop_oneof![Just(b"PROXY ".to_vec()), Just(b"\r\n\r\n\0\r\nQUIT\n".to_vec()), Just(vec![])],
        more in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [begin, more].concat();
        let whole = parse(&bytes);
        for end in 0..=bytes.len() {
            match parse(&bytes[..end]) {
                Ok(None) => {}
                decided => {
                    prop_assert_eq!(decided, whole);
                    if let Ok(Some(header)) = decided {
                        prop_assert!(header.bytes <= end);
                    }
                }
            }
        }
    }
}
