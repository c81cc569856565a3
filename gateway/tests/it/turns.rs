//! Replicas that other gateways use as well: what this gateway does until its turn.

use std::{sync::Arc, time::Duration};

use millgate_contract::frame::RefusalReason;
use millgate_gateway::GatewayConfig;
use tokio::{sync::Notify, time::Instant};

use crate::{
    double::{Act, Double, GreetAs},
    house::{House, model, snapshot},
};

#[tokio::test]
async fn a_refused_call_is_not_sent_again_before_its_turn() {
    let turn = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::RefuseUntil(turn.clone())]).await;
    let mut first = house.begin("1").await;
    double.until_read(1).await;
    let mut second = house.begin("2").await;
    house.until_in_line(2).await;
    turn.notify_one();
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(second.answer().await.status, 200);
    assert_eq!(double.read(), ["1", "1", "2"], "in the order of arrival, and asked for once");
    assert!(double.declined().is_empty());
}

#[tokio::test]
async fn a_turn_for_which_nobody_waits_any_more_is_declined() {
    let turn = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::RefuseUntil(turn.clone())]).await;
    let gone = house.begin("1").await;
    double.until_read(1).await;
    house.until_in_line(1).await;
    drop(gone);
    house.until_in_line(0).await;
    turn.notify_one();
    double.until(|d| d.declined().len() == 1).await;
    assert_eq!(house.call("2").await.status, 200);
    assert_eq!(double.read(), ["1", "2"]);
    assert_eq!(double.declined().len(), 1);
}

#[tokio::test]
async fn a_call_refused_by_one_replica_is_served_by_another_and_the_turn_declined() {
    let turn = Arc::new(Notify::new());
    let (house, double) = House::with_acts(2, vec![Act::RefuseUntil(turn.clone())]).await;
    house.until_figure(r#"millgate_slots_connected{model="m1",name="add"}"#, "2").await;
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(double.read(), ["1", "1"]);
    turn.notify_one();
    double.until(|d| d.declined().len() == 1).await;
    let (one, two) = tokio::join!(house.call("2"), house.call("3"));
    assert_eq!((one.status, two.status), (200, 200));
}

#[tokio::test]
async fn after_an_answer_that_says_others_wait_the_next_call_waits_for_its_turn() {
    let turn = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::EchoQueued(turn.clone())]).await;
    assert_eq!(house.call("1").await.status, 200);
    let mut next = house.begin("2").await;
    house.until_in_line(1).await;
    assert_eq!(double.read(), ["1"]);
    turn.notify_one();
    assert_eq!(next.answer().await.status, 200);
    assert_eq!(double.read(), ["1", "2"]);

    let (house, double) = House::with_acts(1, vec![Act::EchoQueued(turn.clone())]).await;
    assert_eq!(house.call("1").await.status, 200);
    turn.notify_one();
    double.until(|d| d.declined().len() == 1).await;
    assert_eq!(house.call("2").await.status, 200);
}

#[tokio::test]
async fn a_replica_that_ends_or_dies_before_the_turn_comes_is_followed_by_the_next_one() {
    for end in [Act::RefuseAndEnd, Act::RefuseAndDie] {
        let (house, double) = House::with_acts(1, vec![end]).await;
        let answer = house.call("1").await;
        assert!(answer.body.contains(r#""response":1,"ReplicaID":"d1-r1""#), "{answer:?}");
        assert_eq!(double.read(), ["1", "1"]);
    }
}

#[tokio::test]
async fn a_turn_that_crosses_a_call_or_comes_unasked_changes_nothing() {
    let (house, double) = House::with_acts(1, vec![Act::EchoAmongGrants; 3]).await;
    for request in ["1", "2", "3", "4"] {
        let answer = house.call(request).await;
        assert!(answer.body.contains(&format!(r#""response":{request},"ReplicaID":"d1-r0""#)), "{answer:?}");
    }
    assert_eq!(double.read(), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_replica_of_the_version_before_is_asked_again() {
    let house = House::open(GatewayConfig::default()).await;
    let refuse = || Act::Refuse(RefusalReason::Busy);
    let double = Double::start(house.folder.path(), "d1", 1, vec![refuse(), refuse(), Act::Echo, refuse()]);
    double.greet_as(GreetAs { protocol_min: Some(1), ..GreetAs::default() });
    house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(house.call("2").await.status, 200);
    assert_eq!(double.read(), ["1", "1", "1", "2", "2"]);
    assert!(double.declined().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_forgets_whom_it_queued_is_asked_again() {
    let (house, double) = House::with_acts(1, vec![Act::RefuseForGood; 2]).await;
    let begun = Instant::now();
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(double.read(), ["1", "1", "1"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_ends_with_the_wait_of_the_call() {
    let (house, double) = House::with_acts(1, vec![Act::RefuseForGood; 20]).await;
    let begun = Instant::now();
    assert_eq!(house.call("1").await.code(), "model.busy");
    assert_eq!(begun.elapsed().as_secs(), 30);
    house.until_in_line(0).await;
    assert!(double.accepted().is_empty());
}
