//! Replicas that fail. What is proof that a call never started, and what only looks like it, is in `proof.rs`.

use std::collections::HashSet;

use millgate_contract::{frame::RefusalReason, supervision::ToSupervisor};
use millgate_gateway::GatewayConfig;

use crate::{
    dice::Dice,
    double::{Act, Double, GreetAs},
    house::{House, model, snapshot},
};

/// Supervisors hear of these.
pub(crate) fn expired(double: &Double) -> usize {
    double.told().iter().filter(|told| matches!(told, ToSupervisor::Expired { .. })).count()
}

#[tokio::test]
async fn an_answer_written_before_death_is_delivered() {
    let (house, double) = House::with_acts(1, vec![Act::AnswerAndDie]).await;
    assert_eq!(house.call("7").await.status, 200);
    assert_eq!(house.call("8").await.status, 200);
    assert_eq!(double.read(), ["7", "8"]);
}

#[tokio::test]
async fn nonsense_is_502_and_its_replica_is_replaced() {
    for nonsense in [Act::WrongId, Act::Unaccepted, Act::TooLarge] {
        let (house, double) = House::with_acts(1, vec![nonsense]).await;
        assert_eq!(house.call("1").await.code(), "replica.crashed");
        double.until(|d| expired(d) == 1).await;
        assert_eq!(house.call("2").await.status, 200);
        assert_eq!(double.read(), ["1", "2"]);
    }
}

#[tokio::test]
async fn a_late_second_answer_is_nobody_s() {
    let (house, double) = House::with_acts(1, vec![Act::Twice]).await;
    let first = house.call("1").await;
    let second = house.call("2").await;
    assert!(first.body.contains(r#""response":1,"#));
    assert!(second.body.contains(r#""response":2,"#), "{second:?}");
    assert_eq!(double.read(), ["1", "2"]);
}

#[tokio::test]
async fn a_leaving_replica_is_followed_by_the_next_one_in_its_slot() {
    let (house, _double) = House::with_acts(1, vec![Act::Leave]).await;
    assert!(house.call("1").await.body.contains("d1-r0"));
    assert!(house.call("2").await.body.contains("d1-r1"));
}

#[tokio::test]
async fn strangers_in_a_slot_are_not_given_calls() {
    let strangers = [
        GreetAs { build: Some("other".into()), ..GreetAs::default() },
        GreetAs { protocol_min: Some(9), ..GreetAs::default() },
    ];
    for stranger in strangers {
        let house = House::open(GatewayConfig { wait_ms_max: 50, ..GatewayConfig::default() }).await;
        let double = Double::start(house.folder.path(), "d1", 1, vec![]);
        double.greet_as(stranger);
        house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
        assert_eq!(house.call("1").await.code(), "model.busy");
        double.greet_as(GreetAs::default());
        while house.call("1").await.status != 200 {}
        assert_eq!(double.read(), ["1"]);
    }
}

#[tokio::test]
async fn a_call_that_a_replica_does_not_read_ends_at_its_deadline() {
    let house = House::open(GatewayConfig::default()).await;
    let double = Double::start(house.folder.path(), "d1", 1, vec![]);
    double.greet_as(GreetAs { is_deaf: true, ..GreetAs::default() });
    let mut short = model(&double);
    short.request_timeout_ms = 50;
    house.gateway.apply(snapshot(1, vec![short])).unwrap();
    let large = format!("\"{}\"", "x".repeat(5_000_000));
    assert_eq!(house.call(&large).await.code(), "model.timeout");
    double.until(|d| expired(d) == 1).await;
    double.greet_as(GreetAs::default());
    while house.call(&large).await.status != 200 {}
}

#[tokio::test]
async fn a_call_without_caller_still_ends_at_its_deadline() {
    let (house, double) = House::with_acts(1, vec![Act::SilentAccepted]).await;
    let mut short = model(&double);
    short.request_timeout_ms = 50;
    house.gateway.apply(snapshot(2, vec![short])).unwrap();
    let running = house.begin("1").await;
    double.until_read(1).await;
    drop(running);
    double.until(|d| expired(d) == 1).await;
    assert_eq!(house.call("2").await.status, 200);
}

fn any_act(dice: &mut Dice) -> Act {
    match dice.roll(16) {
        0 => Act::Refuse(RefusalReason::Busy),
        1 => Act::Refuse(RefusalReason::NotReady),
        2 => Act::DieUnaccepted,
        3 => Act::DropAccepted,
        4 => Act::Leave,
        5 => Act::Twice,
        6 => Act::WrongId,
        7 => Act::AnswerAndDie,
        8 => Act::TooLarge,
        _ => Act::Echo,
    }
}

/// Whatever replicas and callers do: nothing runs twice, each answer is its caller's, no replica and no call is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_faults_every_call_runs_at_most_once_and_gets_its_own_answer() {
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let acts = (0..300).map(|_| any_act(&mut dice)).collect();
        let (house, double) = House::with_acts(3, acts).await;
        let mut callers = Vec::new();
        for number in 0..300_u32 {
            let mut caller = house.begin(&number.to_string()).await;
            if dice.roll(8) == 0 {
                drop(caller);
                continue;
            }
            callers.push(tokio::spawn(async move { (number, caller.answer().await) }));
        }
        for caller in callers {
            let (number, answer) = caller.await.unwrap();
            match answer.status {
                200 => assert!(answer.body.contains(&format!("\"response\":{number},")), "{answer:?}"),
                502 => {}
                _ => panic!("seed {seed}: {answer:?}"),
            }
        }
        let accepted = double.accepted();
        let once: HashSet<_> = accepted.iter().collect();
        assert_eq!(once.len(), accepted.len(), "seed {seed}: a call ran twice");
        // Calm again: every slot serves.
        house.until_figure(r#"millgate_slots_connected{model="m1",name="add"}"#, "3").await;
        house.until_in_line(0).await;
    }
}
