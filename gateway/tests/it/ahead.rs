//! Calls that are sent to a replica ahead of their turn: what becomes of them when the one before them does not end as
//! expected.

use std::{sync::Arc, time::Duration};

use millgate_gateway::GatewayConfig;
use tokio::{sync::Notify, time::Instant};

use crate::{
    double::{Act, Double},
    faults::expired,
    house::House,
    http::Caller,
};

/// Calls of no time, after which several may be sent ahead.
const QUICK: usize = 100;

/// A deployment of one replica that runs `"first"` as told, and to which `"a"` and `"b"` have been sent behind it.
struct Ahead {
    house: House,
    double: Double,
    first: Caller,
    a: Caller,
    b: Caller,
}

impl Ahead {
    async fn behind(config: GatewayConfig, act: Act) -> Self {
        let (house, double) = House::with_config(config, 1, vec![]).await;
        for _ in 0..QUICK {
            assert_eq!(house.call("0").await.status, 200);
        }
        let go = Arc::new(Notify::new());
        double.will(Act::Hold(go.clone()));
        double.will(act);
        let mut holding = house.begin("1").await;
        double.until_read(QUICK + 1).await;
        let mut callers = Vec::new();
        for (waiting, request) in [(1, "\"first\""), (2, "\"a\""), (3, "\"b\"")] {
            callers.push(house.begin(request).await);
            house.until_in_line(waiting).await;
        }
        go.notify_one();
        assert_eq!(holding.answer().await.status, 200);
        double.until_read(QUICK + 2).await;
        // Both are before the replica, and still wait.
        house.until_in_line(2).await;
        let [first, a, b] = callers.try_into().map_err(|_| "three were begun").unwrap();
        Self { house, double, first, a, b }
    }

    /// What was read from the call that `"a"` and `"b"` lie behind on.
    fn read(&self) -> Vec<String> {
        self.double.read().split_off(QUICK + 1)
    }
}

#[tokio::test]
async fn they_run_in_their_order_and_each_caller_has_its_own_answer() {
    let go = Arc::new(Notify::new());
    let mut ahead = Ahead::behind(GatewayConfig::default(), Act::Hold(go.clone())).await;
    go.notify_one();
    for (caller, request) in
        [(&mut ahead.first, "\"first\""), (&mut ahead.a, "\"a\""), (&mut ahead.b, "\"b\"")]
    {
        let answer = caller.answer().await;
        assert!(answer.body.contains(&format!("\"response\":{request},")), "{answer:?}");
    }
    assert_eq!(ahead.read(), ["\"first\"", "\"a\"", "\"b\""]);
    assert_eq!(ahead.house.call("2").await.status, 200, "the replica is free");
}

#[tokio::test]
async fn when_the_replica_dies_they_are_tried_again_and_only_the_running_call_is_lost() {
    let mut ahead = Ahead::behind(GatewayConfig::default(), Act::SilentAccepted).await;
    let replica = ahead.double.replica(0);
    ahead.double.say_dead(0, &replica);
    assert_eq!(ahead.first.answer().await.code(), "replica.crashed");
    assert_eq!(ahead.a.answer().await.status, 200);
    assert_eq!(ahead.b.answer().await.status, 200);
    assert_eq!(ahead.read(), ["\"first\"", "\"a\"", "\"b\""]);
    assert_eq!(ahead.house.figure("millgate_retries_total").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_socket_s_end_without_the_supervisor_s_word_is_no_proof_for_them() {
    let go = Arc::new(Notify::new());
    let mut ahead = Ahead::behind(GatewayConfig::default(), Act::DropLater(go.clone())).await;
    go.notify_one();
    for caller in [&mut ahead.first, &mut ahead.a, &mut ahead.b] {
        assert_eq!(caller.answer().await.code(), "replica.crashed");
    }
    assert_eq!(ahead.read(), ["\"first\""]);
}

#[tokio::test(start_paused = true)]
async fn they_are_wanted_back_when_the_call_before_them_takes_long() {
    let go = Arc::new(Notify::new());
    let mut ahead = Ahead::behind(GatewayConfig::default(), Act::Hold(go.clone())).await;
    let begun = Instant::now();
    ahead.double.until(|double| !double.recalled().is_empty()).await;
    assert!(begun.elapsed() <= Duration::from_millis(10), "{:?}", begun.elapsed());
    let (id, last) = ahead.double.recalled()[0];
    assert_eq!(last.0, id.0 + 2);
    // One that cannot give them back runs them, and they are wanted back once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    go.notify_one();
    for caller in [&mut ahead.first, &mut ahead.a, &mut ahead.b] {
        assert_eq!(caller.answer().await.status, 200);
    }
    assert_eq!(ahead.double.recalled().len(), 1);
    assert_eq!(expired(&ahead.double), 0);
}

/// Calls of 20 ms, after which it is known that they take as long. The clock stands still meanwhile.
const STEADY: usize = 400;

/// Replicas that run `"first"` as told, the one after as long as need be, and so many calls that wait since before they began.
async fn steady(slots: u16, acts: Vec<Act>, waiting: usize) -> (House, Double, Vec<Caller>) {
    let (house, double) = House::with_acts(slots, vec![Act::Took(20_000); STEADY]).await;
    for _ in 0..STEADY {
        assert_eq!(house.call("0").await.status, 200);
    }
    let go = Arc::new(Notify::new());
    let count = acts.len();
    for _ in 0..slots {
        double.will(Act::Hold(go.clone()));
    }
    for act in acts {
        double.will(act);
    }
    let mut callers = Vec::new();
    for call in 0..usize::from(slots) {
        callers.push(house.begin("1").await);
        double.until_read(STEADY + call + 1).await;
    }
    for call in 0..count + waiting {
        callers.push(house.begin("\"waits\"").await);
        house.until_in_line(call + 1).await;
    }
    for _ in 0..slots {
        go.notify_one();
    }
    double.until_read(STEADY + usize::from(slots) + count).await;
    (house, double, callers)
}

#[tokio::test(start_paused = true)]
async fn behind_a_longer_call_one_is_sent_when_it_should_be_about_to_end() {
    let go = Arc::new(Notify::new());
    let begun = Instant::now();
    let (_house, double, callers) = steady(1, vec![Act::Hold(go.clone())], 2).await;
    double.until(|double| !double.recalled().is_empty()).await;
    // It is wanted back when the call before it has not ended 5 ms later.
    let recalled = begun.elapsed();
    assert!((Duration::from_millis(20)..Duration::from_millis(30)).contains(&recalled), "{recalled:?}");
    let (id, last) = double.recalled()[0];
    assert_eq!(last.0, id.0 + 1, "one, and not both");
    go.notify_one();
    for mut caller in callers {
        assert_eq!(caller.answer().await.status, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_longer_call_none_is_sent_that_another_replica_may_take() {
    let go = Arc::new(Notify::new());
    let (house, double, callers) = steady(2, vec![Act::Hold(go.clone()), Act::Hold(go.clone())], 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(double.recalled().is_empty());
    house.until_in_line(1).await;
    go.notify_one();
    go.notify_one();
    for mut caller in callers {
        assert_eq!(caller.answer().await.status, 200);
    }
}

#[tokio::test]
async fn one_whose_caller_hangs_up_costs_neither_the_next_one_nor_the_replica() {
    let go = Arc::new(Notify::new());
    let mut ahead = Ahead::behind(GatewayConfig::default(), Act::Hold(go.clone())).await;
    drop(ahead.a);
    ahead.house.until_in_line(1).await;
    go.notify_one();
    assert_eq!(ahead.first.answer().await.status, 200);
    assert_eq!(ahead.b.answer().await.status, 200);
    assert_eq!(ahead.house.call("2").await.status, 200, "the replica is free");
    assert_eq!(expired(&ahead.double), 0);
}

#[tokio::test]
async fn one_behind_a_call_whose_caller_hangs_up_has_its_answer() {
    let go = Arc::new(Notify::new());
    let Ahead { house: _house, double, first, mut a, mut b } =
        Ahead::behind(GatewayConfig::default(), Act::Hold(go.clone())).await;
    drop(first);
    go.notify_one();
    assert_eq!(a.answer().await.status, 200);
    assert_eq!(b.answer().await.status, 200);
    assert_eq!(double.read()[QUICK + 1..], ["\"first\"", "\"a\"", "\"b\""]);
}

#[tokio::test(start_paused = true)]
async fn one_that_may_have_begun_is_not_told_that_it_waited_too_long() {
    let go = Arc::new(Notify::new());
    let config = GatewayConfig { wait_ms_max: 50, ..GatewayConfig::default() };
    let mut ahead = Ahead::behind(config, Act::Hold(go.clone())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    go.notify_one();
    assert_eq!(ahead.first.answer().await.status, 200);
    assert_eq!(ahead.a.answer().await.status, 200);
    assert_eq!(ahead.b.answer().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_time_takes_its_replica_along_and_not_those_behind_it() {
    // So that those behind it have time left to be tried again.
    let config = GatewayConfig { wait_ms_max: 90_000, ..GatewayConfig::default() };
    let mut ahead = Ahead::behind(config, Act::SilentAccepted).await;
    ahead.double.until(|double| expired(double) == 1).await;
    let replica = ahead.double.replica(0);
    ahead.double.say_dead(0, &replica);
    assert_eq!(ahead.first.answer().await.code(), "model.timeout");
    assert_eq!(ahead.a.answer().await.status, 200);
    assert_eq!(ahead.b.answer().await.status, 200);
}

#[tokio::test]
async fn nothing_is_sent_ahead_to_replicas_that_leave_after_each_call() {
    let go = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Leave; QUICK]).await;
    for _ in 0..QUICK {
        assert_eq!(house.call("0").await.status, 200);
    }
    double.will(Act::Hold(go.clone()));
    double.will(Act::Hold(go.clone()));
    let mut first = house.begin("1").await;
    double.until_read(QUICK + 1).await;
    let mut second = house.begin("2").await;
    house.until_in_line(1).await;
    let third = house.begin("3").await;
    house.until_in_line(2).await;
    go.notify_one();
    assert_eq!(first.answer().await.status, 200);
    double.until_read(QUICK + 2).await;
    // The third is still the line's: it can be left without a trace.
    drop(third);
    house.until_in_line(0).await;
    go.notify_one();
    assert_eq!(second.answer().await.status, 200);
    // Behind whatever was sent before it.
    assert_eq!(house.call("4").await.status, 200);
    assert_eq!(double.read()[QUICK..], ["1", "2", "4"]);
}
