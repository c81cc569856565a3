//! A call is tried again only where it is proven that it never started: each proof, and each thing that only looks like one.

use std::sync::Arc;

use millgate_contract::frame::RefusalReason;
use millgate_gateway::GatewayConfig;
use tokio::{sync::Notify, time::Instant};

use crate::{
    double::{Act, Double, GreetAs},
    faults::expired,
    house::{House, model, snapshot},
};

// Proofs.

#[tokio::test]
async fn a_slot_that_cannot_be_connected_to_has_not_run_anything() {
    let house = House::open(GatewayConfig::default()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let double = Double::start(elsewhere.path(), "d1", 1, vec![]);
    let mut nowhere = model(&double);
    let millgate_contract::route::Target::Deployment(route) = &mut nowhere.target else {
        panic!("it is one")
    };
    route.run_dir = house.folder.path().join("late");
    house.gateway.apply(snapshot(1, vec![nowhere])).unwrap();
    let mut caller = house.begin("1").await;
    house.until_in_line(1).await;
    std::os::unix::fs::symlink(&double.run_dir, house.folder.path().join("late")).unwrap();
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn a_call_half_written_to_a_replica_that_dies_is_tried_again() {
    let house = House::open(GatewayConfig::default()).await;
    let double = Double::start(house.folder.path(), "d1", 1, vec![]);
    double.greet_as(GreetAs { is_deaf: true, ..GreetAs::default() });
    house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
    double.until(|d| !d.told().is_empty()).await;
    let mut caller = house.begin(&format!("\"{}\"", "x".repeat(5_000_000))).await;
    double.until(|d| d.half_read().len() == 1).await;
    double.greet_as(GreetAs::default());
    double.say_dead(0, "d1-r0");
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(double.read().len(), 1);
}

#[tokio::test]
async fn a_call_half_written_to_a_replica_that_hangs_up_is_tried_again_without_a_word() {
    let house = House::open(GatewayConfig::default()).await;
    let double = Double::start(house.folder.path(), "d1", 1, vec![]);
    double.greet_as(GreetAs { is_deaf: true, hangs_up: true, ..GreetAs::default() });
    house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
    let mut caller = house.begin(&format!("\"{}\"", "x".repeat(5_000_000))).await;
    double.until(|d| !d.half_read().is_empty()).await;
    double.greet_as(GreetAs::default());
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(double.read().len(), 1);
}

#[tokio::test]
async fn a_refused_call_is_tried_again_and_runs_once() {
    for reason in [RefusalReason::Busy, RefusalReason::Draining, RefusalReason::NotReady] {
        let (house, double) = House::with_acts(1, vec![Act::Refuse(reason), Act::Refuse(reason)]).await;
        assert_eq!(house.call("1").await.status, 200);
        assert_eq!(double.read().len(), 3);
        assert_eq!(house.figure("millgate_retries_total").await.as_deref(), Some("2"));
        assert_eq!(expired(&double), 0);
    }
}

#[tokio::test]
async fn a_replica_dead_by_its_supervisor_s_word_without_accepted_is_proof() {
    let (house, double) = House::with_acts(1, vec![Act::Silent]).await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    double.say_dead(0, "d1-r0");
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(double.read(), ["1", "1"]);
}

#[tokio::test]
async fn a_socket_s_end_is_proof_with_the_supervisor_s_word() {
    let (house, double) = House::with_acts(1, vec![Act::DropUnaccepted]).await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    double.say_dead(0, "d1-r0");
    assert_eq!(caller.answer().await.status, 200);
    assert_eq!(double.read(), ["1", "1"]);
}

// What only looks like it.

#[tokio::test]
async fn a_socket_s_end_without_the_supervisor_s_word_is_no_proof() {
    let (house, double) = House::with_acts(1, vec![Act::DropUnaccepted]).await;
    assert_eq!(house.call("1").await.code(), "replica.crashed");
    assert_eq!(double.read(), ["1"]);
    double.until(|d| expired(d) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_lost_may_have_lost_an_accepted_with_it() {
    let (house, double) = House::with_acts(1, vec![Act::Silent]).await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    let begun = Instant::now();
    // Replica and supervisor, all at once: nobody is left to say what became of the call.
    drop(double);
    assert_eq!(caller.answer().await.code(), "replica.crashed");
    assert!(
        begun.elapsed().as_secs() <= 2,
        "a word that does not come is not waited for longer than it may take"
    );
    assert_eq!(house.figure("millgate_retries_total").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_replica_that_stops_and_goes_on_runs_its_call_once() {
    let goes_on = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Late(goes_on.clone())]).await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    // Another one may call meanwhile; nobody takes the first call for lost.
    let mut next = house.begin("2").await;
    house.until_in_line(1).await;
    goes_on.notify_one();
    assert!(caller.answer().await.body.contains("\"response\":1,"));
    assert!(next.answer().await.body.contains("\"response\":2,"));
    assert_eq!(double.read(), ["1", "2"]);
}

#[tokio::test]
async fn a_replica_that_goes_on_after_the_deadline_answers_nobody() {
    let goes_on = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Late(goes_on.clone())]).await;
    let mut short = model(&double);
    short.request_timeout_ms = 50;
    house.gateway.apply(snapshot(2, vec![short])).unwrap();
    assert_eq!(house.call("1").await.code(), "model.timeout");
    double.until(|d| expired(d) == 1).await;
    // Delivered after the kill was asked for.
    goes_on.notify_one();
    double.until(|d| d.accepted().len() == 1).await;
    let answer = house.call("2").await;
    assert!(answer.body.contains("\"response\":2,\"ReplicaID\":\"d1-r1\""), "{answer:?}");
    assert_eq!(double.read(), ["1", "2"]);
}

#[tokio::test]
async fn a_replica_that_is_being_ended_is_not_dead_and_may_still_answer() {
    let goes_on = Arc::new(Notify::new());
    let (house, double) = House::with_acts(2, vec![Act::Late(goes_on.clone())]).await;
    house.until_figure(r#"millgate_slots_connected{model="m1",name="add"}"#, "2").await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    let idle = if house.call("2").await.body.contains("d1-r0") { "d1-r0" } else { "d1-r1" };
    for (slot, replica) in [(0, "d1-r0"), (1, "d1-r1")] {
        double.say_ending(slot, replica);
    }
    // The words are heard in their order, and what this one does can be seen.
    double.say_dead(0, idle);
    while house.call("3").await.body.contains(idle) {}
    goes_on.notify_one();
    let answer = caller.answer().await;
    assert!(answer.body.contains("\"response\":1,"), "{answer:?}");
    assert_eq!(double.read().iter().filter(|request| *request == "1").count(), 1);
}

#[tokio::test]
async fn an_accepted_that_is_unread_when_the_death_is_told_counts() {
    let (house, double) = House::with_acts(1, vec![Act::AcceptAndDie]).await;
    assert_eq!(house.call("1").await.code(), "replica.crashed");
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn a_refusal_of_what_was_accepted_is_no_proof() {
    let (house, double) = House::with_acts(1, vec![Act::RefuseAccepted]).await;
    assert_eq!(house.call("1").await.code(), "replica.crashed");
    double.until(|d| expired(d) == 1).await;
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn a_refusal_of_another_call_is_no_proof() {
    let (house, double) = House::with_acts(1, vec![Act::RefuseOther]).await;
    assert_eq!(house.call("1").await.code(), "replica.crashed");
    double.until(|d| expired(d) == 1).await;
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn a_death_after_accepted_is_502_and_nothing_is_tried_again() {
    let (house, double) = House::with_acts(1, vec![Act::SilentAccepted]).await;
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    double.say_dead(0, "d1-r0");
    let answer = caller.answer().await;
    assert_eq!(answer.code(), "replica.crashed");
    assert!(answer.body.contains(r#""ReplicaID":"d1-r0""#));
    assert_eq!(double.read(), ["1"]);
}

#[tokio::test]
async fn the_death_of_another_replica_is_no_proof() {
    let (house, double) = House::with_acts(1, vec![Act::Silent]).await;
    let mut short = model(&double);
    short.request_timeout_ms = 50;
    house.gateway.apply(snapshot(2, vec![short])).unwrap();
    let mut caller = house.begin("1").await;
    double.until_read(1).await;
    double.say_dead(0, "d1-r9");
    assert_eq!(caller.answer().await.code(), "model.timeout");
    assert_eq!(double.read(), ["1"]);
}
