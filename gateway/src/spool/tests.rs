use std::{
    fs,
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use millgate_contract::tracked::{RECORD_BYTES_MAX, Records, TrackedPrediction};

use super::{
    Full, NotKept, Spool, SpoolConfig, SpoolSync,
    folder::{segment_file, segments},
    shipment::Shipment,
};
use crate::tracking::Tracking;

fn config(folder: &Path) -> SpoolConfig {
    SpoolConfig::new(folder).with_bytes_max(SpoolConfig::BYTES_MIN)
}

fn prediction(n: u64, metrics_bytes: usize) -> TrackedPrediction<'static> {
    TrackedPrediction {
        uuid: format!("u{n}").leak(),
        model: "m",
        deployment: "d",
        replica: "r",
        start_ms: n,
        end_ms: n + 1,
        metrics: vec![b'7'; metrics_bytes].leak(),
    }
}

fn tracks() -> Tracking {
    let tracking = Tracking::default();
    tracking.learn(true);
    tracking
}

async fn keep(spool: &Spool, n: u64, metrics_bytes: usize) -> Result<(), NotKept> {
    let allowance = spool.set_aside(&tracks()).expect("there is room");
    spool.keep(&prediction(n, metrics_bytes), allowance).await
}

/// Everything that is on the spool, shipped and kept.
fn ship(shipment: &mut Shipment) -> Vec<String> {
    let mut uuids = Vec::new();
    while let Some(batch) = shipment.next(true).unwrap() {
        uuids.extend(Records::of(&batch).map(|row| row.uuid.to_owned()));
        shipment.kept();
    }
    uuids
}

fn shipment(spool: &Spool) -> Shipment {
    Shipment::new(spool.shared.clone())
}

fn names(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("u{n}")).collect()
}

#[tokio::test]
async fn what_was_kept_is_there_after_the_process_has_gone() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    for n in 0..3 {
        keep(&spool, n, 10).await.unwrap();
    }
    // The lock goes with the process; what it has written stays as it is.
    drop(spool);
    let spool = Spool::open(config(temp.path())).unwrap();
    keep(&spool, 3, 10).await.unwrap();
    assert_eq!(ship(&mut shipment(&spool)), names(0..4));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "one folder is taken over again and again");
}

#[tokio::test]
async fn a_record_cut_short_by_a_kill_is_cut_off_and_the_next_one_follows_the_last_whole_one() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    keep(&spool, 0, 10).await.unwrap();
    keep(&spool, 1, 10).await.unwrap();
    let file = segment_file(spool.shared.folder.path(), 1);
    drop(spool);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    keep(&spool, 2, 10).await.unwrap();
    assert_eq!(ship(&mut shipment(&spool)), ["u0", "u2"]);
    assert_eq!(spool.metrics().unreadable_bytes.get(), 0);
}

#[tokio::test]
async fn damage_costs_what_lies_behind_it_in_its_file_and_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    for n in 0..6 {
        keep(&spool, n, 60_000).await.unwrap();
    }
    let file = segment_file(spool.shared.folder.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    let behind = bytes.len() - bytes.len() / 2;
    let at = bytes.len() / 2 + 100;
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert_eq!(ship(&mut shipment(&spool)), ["u0", "u2", "u3", "u4", "u5"]);
    assert_eq!(spool.metrics().unreadable_bytes.get(), behind as u64);
}

#[tokio::test]
async fn a_full_spool_refuses_calls_that_track_and_those_only_and_has_room_again_when_it_is_shipped() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    let mut kept = 0;
    while let Ok(allowance) = spool.set_aside(&tracks()) {
        spool.keep(&prediction(kept, 60_000), allowance).await.unwrap();
        kept += 1;
    }
    assert!(kept >= 15, "{kept}");
    assert_eq!(spool.metrics().refused_calls.get(), 1);
    let folder = spool.shared.folder.path().to_owned();
    let on_disk = |numbers: &[u64]| -> u64 {
        numbers.iter().map(|n| fs::metadata(segment_file(&folder, *n)).unwrap().len()).sum()
    };
    let numbers = segments(&folder).unwrap();
    assert!(on_disk(&numbers) <= SpoolConfig::BYTES_MIN && numbers.len() <= 16, "{numbers:?}");
    assert_eq!(spool.metrics().bytes.get(), on_disk(&numbers));

    let untracked = Tracking::default();
    untracked.learn(false);
    assert!(spool.set_aside(&untracked).unwrap().is_none());
    assert!(spool.set_aside(&Tracking::default()).unwrap().is_some(), "its first answer will tell");

    assert_eq!(ship(&mut shipment(&spool)), names(0..kept));
    assert_eq!(segments(&folder).unwrap().len(), 1, "what is kept elsewhere is deleted");
    keep(&spool, kept, 10).await.unwrap();
}

#[tokio::test]
async fn room_that_is_set_aside_is_refused_to_others_until_its_call_has_ended() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    let most = SpoolConfig::BYTES_MIN / RECORD_BYTES_MAX as u64;
    let mut aside: Vec<_> = (0..most).map(|_| spool.set_aside(&tracks()).unwrap()).collect();
    assert_eq!(spool.set_aside(&tracks()).err(), Some(Full));
    // Its caller hung up.
    drop(aside.pop());
    let allowance = spool.set_aside(&tracks()).unwrap();
    // A small record gives back what it does not need, which is nearly all.
    spool.keep(&prediction(0, 10), allowance).await.unwrap();
    let _another = spool.set_aside(&tracks()).unwrap();
    assert_eq!(spool.set_aside(&tracks()).err(), Some(Full));
}

#[tokio::test]
async fn while_nothing_can_be_written_no_call_is_sent_and_then_they_are_again() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    let folder = spool.shared.folder.path().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(keep(&spool, 0, 10).await, Err(NotKept));
    assert_eq!(spool.set_aside(&tracks()).err(), Some(Full));
    assert_eq!((spool.metrics().is_failing.get(), spool.metrics().failed_calls.get()), (1, 1));
    fs::create_dir(&folder).unwrap();
    while spool.set_aside(&tracks()).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.metrics().is_failing.get(), 0);
    keep(&spool, 1, 10).await.unwrap();
    assert_eq!(ship(&mut shipment(&spool)), ["u1"]);
    assert_eq!(spool.metrics().bytes.get(), fs::metadata(segment_file(&folder, 1)).unwrap().len());
}

#[tokio::test]
async fn gateways_that_share_a_spool_have_folders_of_their_own_and_ship_what_a_dead_one_left() {
    let temp = tempfile::tempdir().unwrap();
    let first = Spool::open(config(temp.path())).unwrap();
    let second = Spool::open(config(temp.path())).unwrap();
    keep(&first, 0, 10).await.unwrap();
    keep(&second, 1, 10).await.unwrap();
    let mut shipment = shipment(&second);
    assert_eq!(ship(&mut shipment), ["u1"], "what is the other's stays the other's");
    let left = first.shared.folder.path().to_owned();
    drop(first);
    assert_eq!(ship(&mut shipment), ["u0"]);
    assert!(segments(&left).unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_that_is_not_said_to_be_kept_is_shipped_again() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    keep(&spool, 0, 10).await.unwrap();
    let mut shipment = shipment(&spool);
    let batch = shipment.next(true).unwrap().unwrap();
    shipment.forget_flight();
    shipment.kept();
    assert_eq!(shipment.next(true).unwrap().unwrap(), batch);
}

#[tokio::test]
async fn a_call_that_finds_another_writing_leaves_its_record_and_is_told_when_it_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    let pen = spool.shared.queue.pen(Instant::now()).expect("nobody writes");
    let (mut first, mut second) = (pin!(keep(&spool, 0, 10)), pin!(keep(&spool, 1, 10)));
    tokio::select! {
        biased;
        _ = &mut first => panic!("nobody can have written it"),
        _ = &mut second => panic!("nobody can have written it"),
        () = std::future::ready(()) => {}
    }
    assert!(spool.shared.queue.pen(Instant::now()).is_none());
    drop(pen);
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(ship(&mut shipment(&spool)), names(0..2));
}

#[tokio::test]
async fn after_a_slow_write_calls_leave_theirs_to_the_thread_for_a_while() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(config(temp.path())).unwrap();
    let began = Instant::now().checked_sub(Duration::from_secs(1)).expect("the machine runs for longer");
    drop(spool.shared.queue.pen(began).expect("nobody writes"));
    assert!(spool.shared.queue.pen(Instant::now()).is_none());
    keep(&spool, 0, 10).await.unwrap();
    assert_eq!(ship(&mut shipment(&spool)), ["u0"]);
    assert!(spool.shared.queue.pen(Instant::now() + Duration::from_secs(60)).is_some());
}

#[tokio::test]
async fn calls_in_one_write_are_each_told() {
    let temp = tempfile::tempdir().unwrap();
    let spool = Spool::open(SpoolConfig { sync: SpoolSync::Batch, ..SpoolConfig::new(temp.path()) }).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let spool = spool.clone();
        calls.spawn(async move { keep(&spool, n, 10).await });
    }
    while let Some(kept) = calls.join_next().await {
        kept.unwrap().unwrap();
    }
    let mut shipped = ship(&mut shipment(&spool));
    shipped.sort_unstable_by_key(|uuid| uuid[1..].parse::<u64>().unwrap());
    assert_eq!(shipped, names(0..100));
}
