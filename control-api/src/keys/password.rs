//! Passwords of people: Argon2id, and what guessing costs. A check takes as long for a name that there is not; checks come
//! one after another, and whoever fails too often from one address waits.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    builder::blocking,
    fault::{Fault, Outcome},
};

/// Characters of a password.
pub(crate) const CHARS_MIN: usize = 12;
const CHARS_MAX: usize = 1_000;
/// Failures of one name from one address, and the time in which they count.
const FAILURES_MAX: u32 = 10;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);
/// Names and addresses that are remembered.
const REMEMBERED_MAX: usize = 10_000;
/// Checks that may wait; each takes 19 MiB and some 20 ms.
const WAITING_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Passwords {
    turn: Semaphore,
    waiting: Semaphore,
    failures: Mutex<HashMap<(String, IpAddr), Failures>>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), waiting: Semaphore::new(WAITING_MAX), failures: Mutex::default() }
    }
}

impl Passwords {
    /// The hash that is kept of a password. Refuses one that is too short to be one.
    pub(crate) async fn hash(&self, field: &str, password: String) -> Outcome<String> {
        let chars = password.chars().count();
        if !(CHARS_MIN..=CHARS_MAX).contains(&chars) {
            return Err(Fault::Invalid(format!(
                "field `{field}` has {chars} characters: it must have {CHARS_MIN} to {CHARS_MAX}"
            )));
        }
        let _turn = self.turn().await?;
        blocking(move || hash(&password)).await?
    }

    /// Whether `password` is the one of `kept`; '' is nobody's. `from` is where it came from.
    pub(crate) async fn is_right(
        &self,
        (username, from): (&str, IpAddr),
        kept: String,
        password: String,
    ) -> Outcome<bool> {
        let who = (username.to_owned(), from);
        self.refuse_often(&who)?;
        let is_right = if password.chars().count() > CHARS_MAX {
            false
        } else {
            let _turn = self.turn().await?;
            blocking(move || verify(&kept, &password)).await?
        };
        self.note(who, is_right);
        Ok(is_right)
    }

    async fn turn(&self) -> Outcome<(tokio::sync::SemaphorePermit<'_>, tokio::sync::SemaphorePermit<'_>)> {
        let busy = || Fault::Exhausted("too many passwords are being checked; try again".to_owned());
        let waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let turn = self.turn.acquire().await.map_err(|_| busy())?;
        Ok((waiting, turn))
    }

    fn refuse_often(&self, who: &(String, IpAddr)) -> Outcome<()> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(who) {
            Some(found) if found.count >= FAILURES_MAX && found.since.elapsed() < FAILURES_WINDOW => {
                Err(Fault::Exhausted("too many wrong passwords; try again in a minute".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, who: (String, IpAddr), is_right: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if is_right {
            failures.remove(&who);
            return;
        }
        if failures.len() >= REMEMBERED_MAX {
            failures.retain(|_, found| found.since.elapsed() < FAILURES_WINDOW);
        }
        if failures.len() >= REMEMBERED_MAX {
            failures.clear();
        }
        let found = failures.entry(who).or_insert_with(|| Failures { count: 0, since: Instant::now() });
        if found.since.elapsed() >= FAILURES_WINDOW {
            *found = Failures { count: 0, since: Instant::now() };
        }
        found.count += 1;
    }
}

fn hash(password: &str) -> Outcome<String> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).expect("the system's random source answers");
    let failed = |e: argon2::password_hash::Error| Fault::internal(e.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

fn verify(kept: &str, password: &str) -> bool {
    // Of the same cost as any: whether there is such a name is not told by the time it takes.
    const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$\
                           3m0b8Qe2Zl1Qm8C0y3f3z0v7b0S1u5o2o9x6b8s1m2E";
    let hash = if kept.is_empty() { NOBODYS } else { kept };
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && !kept.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const PASSWORD: &str = "correct horse battery";

    #[tokio::test]
    async fn a_password_is_right_or_not_and_its_hash_does_not_hold_it() {
        let passwords = Passwords::default();
        let kept = passwords.hash("password", PASSWORD.to_owned()).await.unwrap();
        assert!(kept.starts_with("$argon2id$") && !kept.contains(PASSWORD));
        assert_ne!(kept, passwords.hash("password", PASSWORD.to_owned()).await.unwrap(), "each has its salt");
        for (given, is_right) in [(PASSWORD, true), ("correct horse", false), ("", false)] {
            let found = passwords.is_right(("ada", HOME), kept.clone(), given.to_owned()).await.unwrap();
            assert_eq!(found, is_right, "{given:?}");
        }
        assert!(passwords.hash("password", "short".to_owned()).await.is_err());
    }

    #[test]
    fn nobodys_hash_is_one_that_is_checked_and_opens_nothing() {
        assert!(!verify("", "anything"));
        assert!(!verify("not a hash", "anything"));
    }

    #[tokio::test]
    async fn who_fails_too_often_waits_and_nobody_else_does() {
        let passwords = Passwords::default();
        for _ in 0..FAILURES_MAX {
            assert!(!passwords.is_right(("ada", HOME), String::new(), "x".into()).await.unwrap());
        }
        let often = passwords.is_right(("ada", HOME), String::new(), "x".into()).await;
        assert!(matches!(often, Err(Fault::Exhausted(_))), "{often:?}");
        let elsewhere = IpAddr::from([10, 0, 0, 1]);
        for who in [("ada", elsewhere), ("bob", HOME)] {
            assert!(passwords.is_right(who, String::new(), "x".into()).await.is_ok());
        }
        tokio::time::pause();
        tokio::time::advance(FAILURES_WINDOW).await;
        assert!(passwords.refuse_often(&("ada".to_owned(), HOME)).is_ok());
    }
}
