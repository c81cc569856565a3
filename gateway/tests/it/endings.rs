//! How a gateway ends: who learns of it when, and who is still served.

use std::sync::Arc;

use millgate_gateway::GatewayConfig;
use tokio::sync::Notify;

use crate::{
    double::Act,
    house::{House, call},
};

#[tokio::test]
async fn a_kept_alive_connection_is_answered_once_more_when_another_process_has_taken_over() {
    let (mut house, _double) = House::with_acts(1, vec![]).await;
    let mut kept = house.caller().await;
    kept.send(&call("1")).await;
    let first = kept.answer().await;
    assert_eq!((first.status, first.header("connection")), (200, None));

    house.gateway.succeeded();
    house.begin_close();
    while house.admin("/ready").await.status == 200 {
        tokio::task::yield_now().await;
    }
    kept.send(&call("2")).await;
    let last = kept.answer().await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(kept.is_closed().await);
    // Nobody else is there, so the gateway does not wait for its farewell to pass.
    house.until_closed().await;
}

#[tokio::test]
async fn a_silent_connection_does_not_keep_a_gateway_that_was_succeeded() {
    let config = GatewayConfig { farewell_ms_max: 20, ..GatewayConfig::default() };
    let (mut house, _double) = House::with_config(config, 1, vec![]).await;
    let mut kept = house.caller().await;
    kept.send(&call("1")).await;
    assert_eq!(kept.answer().await.status, 200);
    house.gateway.succeeded();
    house.begin_close();
    house.until_closed().await;
    assert!(kept.is_closed().await);
}

#[tokio::test]
async fn connections_are_accepted_for_a_moment_after_ready_says_no() {
    let hold = Arc::new(Notify::new());
    let config = GatewayConfig { unready_ms: 60_000, ..GatewayConfig::default() };
    let (mut house, double) = House::with_config(config, 2, vec![Act::Hold(hold.clone())]).await;
    let mut running = house.begin("1").await;
    double.until_read(1).await;
    house.begin_close();
    while house.admin("/ready").await.status == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.admin("/live").await.status, 200);
    let late = house.call("2").await;
    assert_eq!((late.status, late.header("connection")), (200, Some("close")));
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
}

#[tokio::test]
async fn what_has_come_on_an_idle_connection_is_answered_before_it_ends() {
    // As many as to find some between two looks of the gateway.
    let (mut house, double) = House::with_acts(4, vec![]).await;
    let mut kept = Vec::new();
    for n in 0..50 {
        let mut caller = house.caller().await;
        caller.send(&call(&n.to_string())).await;
        assert_eq!(caller.answer().await.status, 200);
        kept.push(caller);
    }
    // Nothing of the gateway runs between these two lines: there is one thread.
    for caller in &mut kept {
        caller.send(&call("\"last\"")).await;
    }
    house.begin_close();
    for caller in &mut kept {
        let last = caller.answer().await;
        assert_eq!((last.status, last.header("connection")), (200, Some("close")));
        assert!(caller.is_closed().await);
    }
    house.until_closed().await;
    assert_eq!(double.read().len(), 100);
}

#[tokio::test]
async fn a_connection_on_which_nothing_was_asked_yet_may_ask_once_when_the_gateway_ends() {
    let (mut house, _double) = House::with_acts(1, vec![]).await;
    let mut new = house.caller().await;
    house.until_figure("millgate_connections", "1").await;
    new.send(&call("1")).await;
    house.begin_close();
    let last = new.answer().await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    house.until_closed().await;
}
