//! Several gateways, several replicas, and whatever can happen to them, by seed: callers that come and hang up, replicas that
//! stall and die, a gateway that dies, one that does not come when it is its turn, replicas of versions before. Some have
//! one gateway alone: only then are many calls sent ahead.
//!
//! The gateways are real ones and take all their decisions themselves; the replicas decide by the real one's module
//! (`fleet.rs`). Time is paused. Each seed is printed before it is tried: the last one is the one that failed.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use millgate_contract::supervision::ToSupervisor;
use millgate_gateway::GatewayConfig;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    dice::Dice,
    fleet::{Fleet, sleep_through_turns},
    house::{House, call, model, snapshot},
    http::{Answer, Caller},
};

const GATEWAYS: usize = 3;
/// Of several gateways; one alone has more, since only then many are sent ahead.
const CALLS: u64 = 150;
const CALLS_ALONE: u64 = 600;
/// Two calls of one gateway that were sent so far apart have arrived in this order.
const APART: Duration = Duration::from_millis(100);

/// A call, from its caller's side.
struct Sent {
    number: u64,
    gateway: usize,
    at: Instant,
    /// None: hung up, or the gateway died.
    answer: Option<Answer>,
}

async fn ask(address: SocketAddr, number: u64, patience: Option<Duration>) -> Option<Answer> {
    // A gateway that dies resets whom it has not accepted yet.
    let mut caller = Caller::over(TcpStream::connect(address).await.ok()?);
    let bytes = call(&number.to_string());
    match patience {
        Some(patience) => timeout(patience, caller.try_ask(&bytes)).await.ok().flatten(),
        None => caller.try_ask(&bytes).await,
    }
}

/// How many calls were sent ahead, and how many of those were wanted back.
async fn simulate(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let gateways = if seed.is_multiple_of(3) { 1 } else { GATEWAYS };
    let calls = if gateways == 1 { CALLS_ALONE } else { CALLS };
    let slots = 1 + u16::try_from(dice.roll(3)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::start(folder.path(), slots, seed);
    let mut houses = Vec::new();
    for number in 0..gateways {
        let config = GatewayConfig { name: format!("gw-{number}"), ..GatewayConfig::default() };
        let house = House::open(config).await;
        house.gateway.apply(snapshot(1, vec![model(&fleet.double)])).unwrap();
        houses.push(house);
    }
    fleet.double.until(|double| double.told().len() == gateways).await;
    let mut sleepers = JoinSet::new();
    if dice.roll(2) == 0 {
        sleepers.spawn(sleep_through_turns(fleet.double.run_dir.join("s0.sock"), Dice(seed + 1)));
    }
    let dies_after = (gateways > 1 && dice.roll(2) == 0).then(|| calls / 4 + dice.roll(calls / 2));
    let mut callers = JoinSet::new();
    for number in 0..calls {
        let gateway = usize::try_from(dice.roll(houses.len() as u64)).unwrap();
        let patience = (dice.roll(6) == 0).then(|| Duration::from_millis(dice.roll(60)));
        let (address, at) = (houses[gateway].address, Instant::now());
        callers
            .spawn(async move { Sent { number, gateway, at, answer: ask(address, number, patience).await } });
        sleep(Duration::from_millis(dice.roll(7))).await;
        if dies_after == Some(number) {
            houses.pop().unwrap().kill();
        }
    }
    let sent: Vec<Sent> = callers.join_all().await;
    judge(seed, &fleet, &sent, slots);
    drop(sleepers);

    // Calm again: each gateway that lives has every replica at once.
    fleet.calm_down();
    for (gateway, house) in houses.iter().enumerate() {
        let connected = r#"millgate_slots_connected{model="m1",name="add"}"#;
        sleep(Duration::from_secs(10)).await;
        house.until_figure(connected, &slots.to_string()).await;
        let begin = 1_000 * (gateway as u64 + 1);
        let mut callers = JoinSet::new();
        for number in begin..begin + u64::from(slots) {
            callers.spawn(ask(house.address, number, None));
        }
        assert!(callers.join_all().await.into_iter().all(|answer| answer.unwrap().status == 200));
        let accepted = fleet.seen().accepted.lock().unwrap();
        let last = &accepted[accepted.len() - usize::from(slots)..];
        let used: HashSet<_> = last.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(used.len(), usize::from(slots), "seed {seed}: gateway {gateway} has lost a replica");
    }
    let expired = |told: &ToSupervisor| matches!(told, ToSupervisor::Expired { .. });
    assert!(!fleet.double.told().iter().any(expired), "seed {seed}: a sound replica was given up");
    if slots == 1 && gateways > 1 {
        assert!(*fleet.seen().turns.lock().unwrap() > 0, "seed {seed}: nobody ever waited for a turn");
    }
    let (ahead, recalled) = (*fleet.seen().ahead.lock().unwrap(), *fleet.seen().recalled.lock().unwrap());
    (ahead, recalled)
}

fn judge(seed: u64, fleet: &Fleet, sent: &[Sent], slots: u16) {
    let seen = fleet.seen();
    let accepted: Vec<String> =
        seen.accepted.lock().unwrap().iter().map(|(request, _)| request.clone()).collect();
    let started: HashSet<&String> = accepted.iter().collect();
    let died = seen.died.lock().unwrap();
    let mut answered = 0;
    for Sent { number, answer, .. } in sent {
        let Some(answer) = answer else { continue };
        let request = number.to_string();
        match answer.status {
            200 => {
                assert!(answer.body.contains(&format!("\"response\":{number},")), "seed {seed}: {answer:?}");
                assert!(started.contains(&request));
                answered += 1;
            }
            502 => assert!(
                died.contains(&request),
                "seed {seed}: {number} was given up without need: {answer:?}"
            ),
            _ => panic!("seed {seed}: {answer:?}"),
        }
    }
    assert!(answered > sent.len() / 3, "seed {seed}: {answered} answers");
    if slots == 1 {
        judge_order(seed, sent, &accepted);
    }
}

/// With one replica, each gateway's calls start in the order of their arrival.
fn judge_order(seed: u64, sent: &[Sent], accepted: &[String]) {
    let by_request: HashMap<String, &Sent> =
        sent.iter().map(|sent| (sent.number.to_string(), sent)).collect();
    let mut latest: [Option<Instant>; GATEWAYS] = [None; GATEWAYS];
    for sent in accepted.iter().filter_map(|request| by_request.get(request)) {
        let latest = latest[sent.gateway].get_or_insert(sent.at);
        assert!(sent.at + APART > *latest, "seed {seed}: {} was overtaken", sent.number);
        *latest = (*latest).max(sent.at);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_the_laws_hold() {
    let mut seen = (0, 0);
    for seed in 0..24 {
        println!("seed {seed}");
        let (ahead, recalled) = simulate(seed).await;
        seen = (seen.0 + ahead, seen.1 + recalled);
    }
    // They have to hold then, too.
    assert!(seen.0 > 20 && seen.1 > 10, "sent ahead and wanted back: {seen:?}");
}
