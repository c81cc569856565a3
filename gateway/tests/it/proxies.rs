//! Where a caller is, said by proxies: on the first bytes of a connection, and in the head of a request.

use millgate_contract::rate::Rate;
use millgate_gateway::{GatewayConfig, Network, Proxies};
use tokio::time::Instant;

use crate::{
    double::Double,
    house::{ACCESS_KEY, House, call, model, snapshot},
    http::{Caller, post},
};

fn networks(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn behind_a_tcp_proxy() -> GatewayConfig {
    let proxies = Proxies { proxy_protocol_networks: networks(&["127.0.0.0/8"]), ..Proxies::default() };
    GatewayConfig { proxies, ..GatewayConfig::default() }
}

fn behind_an_http_proxy() -> GatewayConfig {
    let proxies = Proxies { http_networks: networks(&["127.0.0.0/8"]), ..Proxies::default() };
    GatewayConfig { proxies, ..GatewayConfig::default() }
}

/// A header of version 2 for a caller at this address.
fn version_2(caller: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &caller[..], &[127, 0, 0, 1, 0x12, 0x34, 0, 80]].concat()
}

/// A house whose model needs a key, where an address may come with one wrong key a minute.
async fn strict_house(config: GatewayConfig) -> (House, Double) {
    let one: Rate = "1/60s".parse().unwrap();
    let config = GatewayConfig { failed_authentication_rate: Some(one), ..config };
    let (house, double) = House::with_config(config, 1, vec![]).await;
    let mut strict = model(&double);
    strict.requires_api_key = true;
    house.gateway.apply(snapshot(2, vec![strict])).unwrap();
    (house, double)
}

/// A call with a wrong key.
fn wrong(headers: &[&str]) -> Vec<u8> {
    let headers = [headers, &["Authorization: Bearer mgk_wrong"]].concat();
    post("/model", &headers, &format!(r#"{{"accessKey":"{ACCESS_KEY}","request":1}}"#))
}

#[tokio::test]
async fn both_versions_of_the_proxy_header_pass_and_what_follows_is_http() {
    let (house, double) = House::with_config(behind_a_tcp_proxy(), 1, vec![]).await;
    for begin in [
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        version_2([192, 0, 2, 1]),
    ] {
        // In one piece with the request, and byte by byte.
        let mut caller = house.caller().await;
        caller.send(&[&begin[..], &call("1")].concat()).await;
        assert_eq!(caller.answer().await.status, 200);
        caller.send(&call("2")).await;
        assert_eq!(caller.answer().await.status, 200);
        let mut caller = house.caller().await;
        for byte in &begin {
            caller.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        caller.send(&call("3")).await;
        assert_eq!(caller.answer().await.status, 200);
    }
    assert_eq!(double.read().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_malformed_proxy_header_ends_the_connection_and_is_counted() {
    let (house, double) = House::with_config(behind_a_tcp_proxy(), 1, vec![]).await;
    let refused = r#"millgate_connections_refused_total{reason="proxy_header"}"#;
    let malformed = [
        b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
        [version_2([1, 2, 3, 4])[..12].to_vec(), vec![0xff; 4]].concat(),
    ];
    for (count, bytes) in (1..).zip([call("1")].into_iter().chain(malformed)) {
        let mut caller = house.caller().await;
        caller.send(&bytes).await;
        assert!(caller.is_closed().await);
        house.until_figure(refused, &count.to_string()).await;
    }
    // One that never comes to its end.
    let mut slow = house.caller().await;
    slow.send(b"PROXY TCP4 ").await;
    let begun = Instant::now();
    assert!(slow.is_closed().await);
    assert!((9..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    house.until_figure(refused, "4").await;
    // Who only looks whether somebody listens is not counted.
    drop(house.caller().await);
    assert!(double.read().is_empty());
}

#[tokio::test]
async fn who_is_not_in_the_network_may_not_say_who_it_is() {
    let proxies = Proxies { proxy_protocol_networks: networks(&["192.0.2.0/24"]), ..Proxies::default() };
    let config = GatewayConfig { proxies, ..GatewayConfig::default() };
    let (house, double) = House::with_config(config, 1, vec![]).await;
    let mut caller = house.caller().await;
    caller.send(&[&b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"[..], &call("1")].concat()).await;
    assert_eq!(caller.answer().await.status, 400);
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(double.read().len(), 1);
}

#[tokio::test]
async fn the_address_a_proxy_names_has_the_places_and_the_failures() {
    let config = GatewayConfig { connections_per_address_max: 2, ..behind_a_tcp_proxy() };
    let (house, _double) = strict_house(config).await;
    let from = async |last: u8| {
        let mut caller = Caller::connect(house.address).await;
        caller.send(&[version_2([192, 0, 2, last]), wrong(&[])].concat()).await;
        caller
    };
    let (mut first, mut second) = (from(1).await, from(1).await);
    assert_eq!([first.answer().await.status, second.answer().await.status], [401, 429]);
    let mut third = from(1).await;
    assert!(third.is_closed().await);
    house.until_figure(r#"millgate_connections_refused_total{reason="address_full"}"#, "1").await;
    // Another caller of the same proxy.
    assert_eq!(from(2).await.answer().await.status, 401);
    drop((first, second));
}

#[tokio::test]
async fn failures_are_counted_by_the_address_that_an_http_proxy_names() {
    let config = GatewayConfig { connections_per_address_max: 1, ..behind_an_http_proxy() };
    let (house, _double) = strict_house(config).await;
    let mut caller = house.caller().await;
    let asked = [
        ("X-Forwarded-For: 192.0.2.1", 401),
        ("X-Forwarded-For: 192.0.2.1", 429),
        // What stands to the left of it is the caller's own invention.
        ("X-Forwarded-For: 192.0.2.7, 192.0.2.1", 429),
        ("X-Forwarded-For: 192.0.2.2", 401),
        ("Forwarded: for=192.0.2.3", 401),
    ];
    for (header, status) in asked {
        caller.send(&wrong(&[header])).await;
        assert_eq!(caller.answer().await.status, status, "{header}");
    }
    // The proxy's connections are many callers', whatever one address may have.
    let mut another = house.caller().await;
    another.send(&wrong(&["X-Forwarded-For: 192.0.2.4"])).await;
    assert_eq!(another.answer().await.status, 401);
}

#[tokio::test]
async fn nothing_is_believed_of_who_is_no_proxy() {
    let (house, _double) = strict_house(GatewayConfig::default()).await;
    let mut caller = house.caller().await;
    for (header, status) in [("X-Forwarded-For: 192.0.2.1", 401), ("X-Forwarded-For: 192.0.2.2", 429)] {
        caller.send(&wrong(&[header])).await;
        assert_eq!(caller.answer().await.status, status);
    }
}
