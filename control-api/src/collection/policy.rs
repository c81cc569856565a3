//! Which builds may be collected: a pure function of what is known of all builds at one moment. Keeps, of each model, what is
//! used or waits to be, what is pinned, the newest, what was used not long ago, and the build that a rollback goes back to.

use std::collections::HashMap;

use millgate_contract::ids::{BuildId, ModelId};

const DAY_US: i64 = 86_400_000_000;

/// What is kept; the rest is collectable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// So many of each model's newest builds.
    pub(crate) keep_last: u32,
    /// What was built, or served, in so many days.
    pub(crate) keep_days: u32,
}

/// A build that is over, whose files are there.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: BuildId,
    pub(crate) model: ModelId,
    /// Grows with each build.
    pub(crate) number: i64,
    /// Can be deployed.
    pub(crate) is_built: bool,
    pub(crate) is_pinned: bool,
    /// A deployment of it serves, or waits, or ends.
    pub(crate) is_used: bool,
    /// The highest sequence of its deployments that serve or are stopped; 0 where there is none.
    pub(crate) sequence: i64,
    /// When it was built or a deployment of it ended, the later.
    pub(crate) used_us: i64,
}

impl Policy {
    /// Those that nothing keeps.
    pub(crate) fn collectable(self, builds: &[Candidate], now_us: i64) -> Vec<BuildId> {
        let mut by_model: HashMap<&ModelId, Vec<&Candidate>> = HashMap::new();
        for build in builds {
            by_model.entry(&build.model).or_default().push(build);
        }
        let since_us = now_us.saturating_sub(i64::from(self.keep_days).saturating_mul(DAY_US));
        let mut collectable: Vec<&Candidate> =
            by_model.into_values().flat_map(|builds| self.of_model(builds, since_us)).collect();
        collectable.sort_by_key(|build| build.number);
        collectable.into_iter().map(|build| build.id.clone()).collect()
    }

    fn of_model(self, mut builds: Vec<&Candidate>, since_us: i64) -> Vec<&Candidate> {
        // What failed serves nobody, however new it is.
        let (built, failed): (Vec<_>, Vec<_>) = builds.drain(..).partition(|build| build.is_built);
        let newest = nth_largest(built.iter().map(|build| build.number), self.keep_last);
        // What serves, or served last, and what served before that.
        let served = nth_largest(built.iter().map(|build| build.sequence).filter(|s| *s > 0), 2);
        let mut collectable: Vec<&Candidate> = built
            .into_iter()
            .filter(|build| build.number < newest && build.used_us < since_us)
            .filter(|build| build.sequence == 0 || build.sequence < served)
            .collect();
        collectable.extend(failed);
        collectable.retain(|build| !build.is_pinned && !build.is_used);
        collectable
    }
}

/// The least of the `n` largest: all that are below it are not among them.
fn nth_largest(values: impl Iterator<Item = i64>, n: u32) -> i64 {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    match n.checked_sub(1) {
        None => i64::MAX,
        Some(last) => values.get(last).copied().unwrap_or(i64::MIN),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 100 * DAY_US;

    fn build(number: i64) -> Candidate {
        Candidate {
            id: BuildId::new(format!("b{number}")),
            model: ModelId::new("m"),
            number,
            is_built: true,
            is_pinned: false,
            is_used: false,
            sequence: 0,
            used_us: 0,
        }
    }

    fn collected(builds: &[Candidate]) -> Vec<i64> {
        let policy = Policy { keep_last: 2, keep_days: 7 };
        let ids = policy.collectable(builds, NOW);
        ids.iter().map(|id| id.as_str()[1..].parse().unwrap()).collect()
    }

    #[test]
    fn the_newest_of_each_model_are_kept_and_failed_ones_count_for_nothing() {
        let mut builds: Vec<Candidate> = (1..=4).map(build).collect();
        builds.push(Candidate { is_built: false, used_us: NOW, ..build(5) });
        builds.push(Candidate { model: ModelId::new("other"), ..build(6) });
        assert_eq!(collected(&builds), [1, 2, 5]);
    }

    #[test]
    fn what_is_pinned_used_or_was_used_not_long_ago_is_kept() {
        let old: Vec<Candidate> = (1..=4).map(build).collect();
        let with = |change: fn(&mut Candidate)| {
            let mut builds = old.clone();
            change(&mut builds[0]);
            collected(&builds)
        };
        assert_eq!(with(|_| {}), [1, 2]);
        assert_eq!(with(|b| b.is_pinned = true), [2]);
        assert_eq!(with(|b| b.is_used = true), [2]);
        assert_eq!(with(|b| b.used_us = NOW - 7 * DAY_US), [2]);
        assert_eq!(with(|b| b.used_us = NOW - 7 * DAY_US - 1), [1, 2]);
    }

    #[test]
    fn what_served_last_and_what_served_before_it_are_kept_whatever_their_age() {
        let sequences = [3, 1, 4, 0, 0, 0];
        let builds: Vec<Candidate> =
            (1..).zip(sequences).map(|(n, sequence)| Candidate { sequence, ..build(n) }).collect();
        assert_eq!(collected(&builds), [2, 4], "1 is what a rollback from 3 goes back to");
    }

    proptest! {
        #[test]
        fn nothing_that_is_used_pinned_or_recent_is_ever_collected(
            given in prop::collection::vec((any::<[bool; 3]>(), 0..9_i64, 0..200_i64, 0..3_u8), 0..30),
            keep_last in 0..5_u32, keep_days in 0..120_u32,
        ) {
            let builds: Vec<Candidate> = (1..).zip(&given).map(|(n, (flags, sequence, day, model))| Candidate {
                is_built: flags[0], is_pinned: flags[1], is_used: flags[2], sequence: *sequence,
                used_us: day * DAY_US, model: ModelId::new(model.to_string()), ..build(n)
            }).collect();
            let ids = Policy { keep_last, keep_days }.collectable(&builds, NOW);
            for gone in builds.iter().filter(|build| ids.contains(&build.id)) {
                prop_assert!(!gone.is_pinned && !gone.is_used);
                if !gone.is_built { continue }
                prop_assert!(gone.used_us < NOW - i64::from(keep_days) * DAY_US);
                let newer = builds.iter().filter(|b| b.model == gone.model && b.is_built && b.number > gone.number);
                prop_assert!(newer.count() >= keep_last as usize);
            }
        }
    }
}
