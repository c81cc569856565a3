//! Budgets of HTTP/2 frames, and the pace of its answers.

use std::time::Duration;

use http_body_util::{BodyExt, Either, Full};
use proptest::prelude::*;

use super::super::{
    frames::FrameBudget,
    pace::{Pace, PaceLimits},
};

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_cheap_frame_has_a_budget_that_is_filled_again() {
    let kinds =
        [(0x3, 200), (0x6, 100), (0x4, 50), (0x0, 200), (0x9, 200), (0x2, 400), (0x8, 20_000), (0xfa, 100)];
    for (kind, most) in kinds {
        let mut budget = FrameBudget::new(24);
        assert!(budget.is_kept_by(&[b'P'; 24]));
        for _ in 0..most {
            assert!(budget.is_kept_by(&frame(kind, 0, &[])), "{kind}");
        }
        tokio::time::advance(Duration::from_secs(11)).await;
        for _ in 0..most {
            assert!(budget.is_kept_by(&frame(kind, 0, &[])), "{kind}");
        }
        assert!(!budget.is_kept_by(&frame(kind, 0, &[])), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_carry_something_have_none() {
    let mut budget = FrameBudget::new(0);
    for _ in 0..10_000 {
        assert!(budget.is_kept_by(&frame(0x0, 0, b"data")));
        assert!(budget.is_kept_by(&frame(0x1, 0x4, b"head")));
        // The end of a body.
        assert!(budget.is_kept_by(&frame(0x0, 0x1, b"")));
    }
}

proptest! {
    #[test]
    fn frames_are_found_however_bytes_are_split(
        payloads in proptest::collection::vec((0_u8..10, 0_usize..50), 0..300),
        cuts in proptest::collection::vec(1_usize..40, 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _inside = runtime.enter();
        let stream: Vec<u8> = payloads.iter().flat_map(|(kind, bytes)| frame(*kind, 0, &vec![0; *bytes])).collect();
        let whole = FrameBudget::new(0).is_kept_by(&stream);
        let mut budget = FrameBudget::new(0);
        let (mut rest, mut sizes, mut kept) = (&stream[..], cuts.iter().cycle(), true);
        while !rest.is_empty() && kept {
            let (piece, others) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            kept = budget.is_kept_by(piece);
            rest = others;
        }
        prop_assert_eq!(kept, whole);
    }
}

const LIMITS: PaceLimits = PaceLimits {
    first: Duration::from_secs(10),
    idle: Duration::from_secs(75),
    untaken: Duration::from_secs(30),
};

/// Seconds until the connection is late.
async fn late_after(pace: &Pace) -> u64 {
    let begun = tokio::time::Instant::now();
    pace.until_late(LIMITS).await;
    begun.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_ends_and_one_that_asked_lives_longer() {
    let pace = Pace::new();
    assert!((10..13).contains(&late_after(&pace).await));
    let pace = Pace::new();
    drop(pace.begin());
    assert!((75..78).contains(&late_after(&pace).await));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_ends_its_connection_and_a_call_that_runs_does_not() {
    let pace = Pace::new();
    let running = pace.begin();
    let asked = pace.begin();
    tokio::time::advance(Duration::from_secs(1_000)).await;
    assert!(!pace.is_late(LIMITS));
    let mut untaken = asked.answer(Either::Left(Full::from(vec![b'x'; 100_000])));
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(!pace.is_late(LIMITS));
        assert_eq!(untaken.frame().await.unwrap().unwrap().into_data().unwrap().len(), 16 * 1024);
    }
    assert!((30..33).contains(&late_after(&pace).await));
    assert_eq!(untaken.collect().await.unwrap().to_bytes().len(), 100_000 - 3 * 16 * 1024);
    assert!(!pace.is_late(LIMITS));
    drop(running);
}
