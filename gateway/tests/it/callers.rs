//! Callers among each other, and callers that go away.

use std::sync::Arc;

use millgate_contract::route::OnHangUp;
use millgate_gateway::GatewayConfig;
use tokio::sync::Notify;

use crate::{
    double::Act,
    house::{House, model, snapshot},
};

#[tokio::test]
async fn calls_are_served_in_the_order_of_their_arrival() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut callers = vec![house.begin("0").await];
    double.until_read(1).await;
    for n in 1..6 {
        callers.push(house.begin(&n.to_string()).await);
        house.until_in_line(n).await;
    }
    hold.notify_one();
    for (n, mut caller) in callers.into_iter().enumerate() {
        assert!(caller.answer().await.body.contains(&format!("\"response\":{n},")));
    }
    assert_eq!(double.read(), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn one_call_at_a_time_runs_on_each_replica() {
    let holds: Vec<_> = (0..3).map(|_| Arc::new(Notify::new())).collect();
    let acts = holds.iter().map(|hold| Act::Hold(hold.clone())).collect();
    let (house, double) = House::with_acts(2, acts).await;
    let mut callers = Vec::new();
    for n in 0..3 {
        callers.push(house.begin(&n.to_string()).await);
        if n < 2 {
            double.until_read(n + 1).await;
        }
    }
    house.until_in_line(1).await;
    assert_eq!(double.read().len(), 2);
    for hold in &holds {
        hold.notify_one();
    }
    for caller in &mut callers {
        assert_eq!(caller.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_the_line_and_nothing_runs_for_it() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut running = house.begin("1").await;
    double.until_read(1).await;
    let gone = house.begin("2").await;
    house.until_in_line(1).await;
    drop(gone);
    house.until_in_line(0).await;
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
    assert_eq!(house.call("3").await.status, 200);
    assert_eq!(double.read(), ["1", "3"]);
    let gone = house.metrics().await.lines().any(|l| l.contains(r#"code="caller.gone"} 1"#));
    assert!(gone, "a caller that went away is counted as such");
}

#[tokio::test]
async fn a_running_call_whose_caller_hangs_up_is_finished_and_its_replica_comes_back() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let running = house.begin("1").await;
    double.until_read(1).await;
    drop(running);
    let mut next = house.begin("2").await;
    house.until_in_line(1).await;
    hold.notify_one();
    let answer = next.answer().await;
    assert!(answer.body.contains(r#""response":2,"ReplicaID":"d1-r0""#), "{answer:?}");
}

#[tokio::test]
async fn a_running_call_is_cancelled_where_the_model_says_so() {
    let config = GatewayConfig { cancel_grace_ms: 20, ..GatewayConfig::default() };
    let (house, double) = House::with_config(config, 1, vec![Act::SilentAccepted]).await;
    let mut cancels = model(&double);
    cancels.on_hang_up = OnHangUp::Cancel;
    house.gateway.apply(snapshot(2, vec![cancels])).unwrap();
    let running = house.begin("1").await;
    double.until_read(1).await;
    drop(running);
    double.until(|d| d.cancelled().len() == 1).await;
    assert_eq!(double.cancelled()[0], double.calls()[0].id);
    // It does not end by itself, so its supervisor is told after the grace.
    double.until(|d| d.told().len() == 2).await;
    assert_eq!(house.call("2").await.status, 200);
}

#[tokio::test]
async fn no_way_of_hanging_up_loses_a_replica() {
    let (house, _double) = House::with_acts(2, vec![]).await;
    for round in 0..300 {
        let caller = house.begin(&round.to_string()).await;
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        drop(caller);
    }
    // Both replicas serve again, at the same time.
    let (one, two) = tokio::join!(house.call("\"one\""), house.call("\"two\""));
    assert_eq!((one.status, two.status), (200, 200));
    let connected = r#"millgate_slots_connected{model="m1",name="add"}"#;
    house.until_figure(connected, "2").await;
    house.until_in_line(0).await;
}

#[tokio::test]
async fn a_drain_lets_running_calls_end_and_takes_no_new_ones() {
    let hold = Arc::new(Notify::new());
    let (mut house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut running = house.begin("1").await;
    double.until_read(1).await;
    assert_eq!(house.admin("/ready").await.status, 200);
    let mut idle = house.caller().await;
    idle.send(&crate::house::call("2")[..20]).await;
    house.begin_close();
    while house.admin("/ready").await.status != 503 {}
    assert_eq!(house.admin("/live").await.status, 200);
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
    assert!(running.is_closed().await);
}
