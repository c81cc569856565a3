use governor::clock::FakeRelativeClock;

use super::*;

fn policy(rate: &str) -> Policy {
    Policy { name: "key", rate: rate.parse().unwrap() }
}

fn keyed(rate: &str, keys_max: usize) -> (KeyedLimiter<u32, FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (KeyedLimiter::with_clock(policy(rate), keys_max, clock.clone()), clock)
}

#[test]
fn a_window_of_calls_may_come_at_once_and_then_evenly() {
    let clock = FakeRelativeClock::default();
    let limiter = Limiter::with_clock(policy("4/60s"), clock.clone());
    for left in (0..4).rev() {
        assert_eq!(limiter.check().unwrap().remaining, left);
    }
    assert_eq!(limiter.check().unwrap_err().wait(), Duration::from_secs(15));
    clock.advance(Duration::from_secs(15));
    assert!(limiter.check().is_ok());
    assert!(limiter.check().is_err());
    clock.advance(Duration::from_secs(3600));
    assert_eq!(limiter.check().unwrap().remaining, 3);
}

#[test]
fn each_key_has_its_own() {
    let (limiter, _) = keyed("1/10s", 10);
    assert!(limiter.check(&1).is_ok());
    assert!(limiter.check(&2).is_ok());
    assert!(limiter.check(&1).is_err());
}

#[test]
fn a_full_store_counts_newcomers_together_and_leaves_the_others_alone() {
    let (limiter, _) = keyed("2/10s", 3);
    for key in 0..3 {
        assert!(limiter.check(&key).is_ok());
    }
    assert!(limiter.check(&10).is_ok());
    assert!(limiter.check(&11).is_ok());
    assert!(limiter.check(&12).is_err(), "two newcomers have used what they share");
    assert!(limiter.check(&0).is_ok());
    assert_eq!(limiter.governor.len(), 3);
}

#[test]
fn a_full_store_forgets_who_has_not_come_for_a_window() {
    let (limiter, clock) = keyed("1/10s", 3);
    for key in 0..3 {
        assert!(limiter.check(&key).is_ok());
    }
    clock.advance(Duration::from_secs(60));
    assert!(limiter.check(&10).is_ok());
    assert!(limiter.check(&10).is_err());
    assert_eq!(limiter.governor.len(), 1);
}

#[test]
fn an_answer_tells_what_is_allowed_and_what_is_left() {
    let clock = FakeRelativeClock::default();
    let key = Limiter::with_clock(policy("4/60s"), clock.clone());
    let model = Limiter::with_clock(Policy { name: "model", ..policy("1/3s") }, clock.clone());
    model.check().unwrap();
    clock.advance(Duration::from_millis(500));
    let mut standings = Standings::default();
    assert_eq!(standings.note(key.check()), Ok(()));
    assert_eq!(standings.note(model.check()), Err(Refusal::RateLimited { retry_after_s: 3 }));
    let mut headers = HeaderMap::new();
    standings.put_on(&mut headers);
    let said = |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(said("ratelimit-policy"), [r#""key";q=4;w=60"#, r#""model";q=1;w=3"#]);
    assert_eq!(said("ratelimit"), [r#""key";r=3;t=15"#, r#""model";r=0;t=3"#]);
}

#[test]
fn a_host_is_one_address_whatever_of_its_network_it_uses() {
    let of = |text: &str| network_of(text.parse().unwrap()).to_string();
    assert_eq!(of("192.0.2.7"), "192.0.2.7");
    assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
}

#[test]
fn the_highest_rate_is_still_one() {
    let limiter = Limiter::new(policy("4294967295/1s"));
    assert!(limiter.check().is_ok());
    assert!(Limiter::new(policy("1/4294967295s")).check().is_ok());
}
