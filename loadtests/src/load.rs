//! Many callers at once, each answer checked against its own call.
//!
//! Numbers are of one width and never used twice in a process, so that a call is made by overwriting ten digits, and a
//! function can count in an array how often each was run.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::task::{JoinHandle, JoinSet};

use crate::{
    http::{Connection, request},
    server::Model,
};

/// The first number. All have ten digits.
pub(crate) const NUMBER_BASE: u64 = 1_000_000_000;
/// Length of a step of [`Outcome::good_by_tenth`].
pub(crate) const TENTH: Duration = Duration::from_millis(100);

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(NUMBER_BASE);

/// How many numbers calls have been given.
pub(crate) fn numbers_given() -> u64 {
    NEXT_NUMBER.load(Ordering::Relaxed) - NUMBER_BASE
}

/// What came back.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Answers by status; 0 is a connection that broke before its answer, or none at all.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Answers with status 200 that were another call's.
    pub(crate) crossed: u64,
    /// Answers that nobody had asked for.
    pub(crate) surplus: u64,
    /// Times of the answers with status 200, in microseconds.
    times_us: Vec<u32>,
    /// Good answers in each tenth of a second since the beginning.
    pub(crate) good_by_tenth: Vec<u64>,
    /// How long it went on.
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn good(&self) -> u64 {
        self.status(200)
    }

    pub(crate) fn all(&self) -> u64 {
        self.by_status.values().sum()
    }

    pub(crate) fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// Good answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.good() as f64 / self.took.as_secs_f64()
    }

    /// The times below which these shares of the good answers lie.
    pub(crate) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Duration; N] {
        let mut times = self.times_us.clone();
        times.sort_unstable();
        shares.map(|share| Duration::from_micros(crate::figures::quantile(&times, share).into()))
    }

    /// The longest time of a good answer.
    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_micros(self.times_us.iter().copied().max().unwrap_or(0).into())
    }

    /// Answers by status, for a person.
    pub(crate) fn statuses(&self) -> String {
        let each = self.by_status.iter().map(|(status, count)| match status {
            0 => format!("{count} × none"),
            _ => format!("{count} × {status}"),
        });
        each.collect::<Vec<_>>().join(", ")
    }

    /// Adds what another load came to.
    pub(crate) fn add(&mut self, other: Self) {
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        self.crossed += other.crossed;
        self.surplus += other.surplus;
        self.times_us.extend(other.times_us);
        if self.good_by_tenth.len() < other.good_by_tenth.len() {
            self.good_by_tenth.resize(other.good_by_tenth.len(), 0);
        }
        for (sum, count) in self.good_by_tenth.iter_mut().zip(other.good_by_tenth) {
            *sum += count;
        }
    }

    fn is_good_after(&mut self, time: Duration, since: Duration) {
        self.times_us.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
        let tenth = (since.as_millis() / TENTH.as_millis()) as usize;
        if self.good_by_tenth.len() <= tenth {
            self.good_by_tenth.resize(tenth + 1, 0);
        }
        self.good_by_tenth[tenth] += 1;
    }
}

/// How to load.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) callers: usize,
    pub(crate) time: Duration,
    /// Calls per second of all callers together; none is as fast as they are answered.
    pub(crate) rate: Option<f64>,
    /// The request; none is `{"n": N}` with a number of its own, whose answer must be that number.
    pub(crate) request: Option<String>,
    /// What such a request must be answered with, where that is looked at.
    pub(crate) answer: Option<String>,
    /// Callers keep their connections for as long as the server does; else each call has a new one.
    pub(crate) keeps: bool,
}

impl Plan {
    /// Numbered calls as fast as they are answered.
    pub(crate) fn numbered(callers: usize, time: Duration) -> Self {
        Self { callers, time, rate: None, request: None, answer: None, keeps: true }
    }

    /// Numbered calls, so many per second of all callers together.
    pub(crate) fn paced(callers: usize, time: Duration, rate: f64) -> Self {
        Self { rate: Some(rate), ..Self::numbered(callers, time) }
    }

    /// This request again and again, as fast as it is answered.
    pub(crate) fn repeated(callers: usize, time: Duration, request: &str) -> Self {
        Self { request: Some(request.to_owned()), ..Self::numbered(callers, time) }
    }
}

/// Loads a model until the time is over and every call is answered.
pub(crate) async fn load(model: &Model, plan: &Plan) -> Outcome {
    let begun = Instant::now();
    let local = tokio::task::LocalSet::new();
    let plan = Rc::new(plan.clone());
    let template = Rc::new(Template::new(model, plan.request.as_deref()));
    let mut outcome = local
        .run_until(async {
            let mut callers = JoinSet::new();
            for number in 0..plan.callers {
                let caller = Caller {
                    plan: Rc::clone(&plan),
                    host: model.host.clone(),
                    template: Rc::clone(&template),
                    begun,
                    outcome: Outcome::default(),
                };
                callers.spawn_local(caller.call_until(number));
            }
            let mut all = Outcome::default();
            while let Some(one) = callers.join_next().await {
                all.add(one.expect("a caller does not panic"));
            }
            all
        })
        .await;
    outcome.took = begun.elapsed();
    outcome
}

/// The same on a thread and a runtime of its own, so that what the scenario does meanwhile never delays a caller.
pub(crate) fn load_apart(model: &Model, plan: Plan) -> JoinHandle<Outcome> {
    let model = model.clone();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs a few descriptors");
        runtime.block_on(load(&model, &plan))
    })
}

/// The bytes of a call, and where its number is.
struct Template {
    bytes: Vec<u8>,
    number_at: Option<usize>,
}

impl Template {
    fn new(model: &Model, fixed: Option<&str>) -> Self {
        const PLACE: &str = "0000000000";
        let body = match fixed {
            Some(text) => model.body(text),
            None => model.body(&format!(r#"{{"n":{PLACE}}}"#)),
        };
        let bytes = request(&model.host, "/model", &model.api_key, &body);
        let number_at = match fixed {
            Some(_) => None,
            None => bytes.windows(PLACE.len()).rposition(|w| w == PLACE.as_bytes()),
        };
        Self { bytes, number_at }
    }
}

struct Caller {
    plan: Rc<Plan>,
    host: String,
    template: Rc<Template>,
    begun: Instant,
    outcome: Outcome,
}

impl Caller {
    async fn call_until(mut self, place: usize) -> Outcome {
        let interval = self.plan.rate.map(|rate| Duration::from_secs_f64(self.plan.callers as f64 / rate));
        // Spread over one interval, so that callers do not all begin at once.
        let first = interval.unwrap_or_default().mul_f64(place as f64 / self.plan.callers as f64);
        let mut next = tokio::time::Instant::now() + first;
        let mut bytes = self.template.bytes.clone();
        let mut kept = None;
        loop {
            if let Some(interval) = interval {
                tokio::time::sleep_until(next).await;
                next += interval;
            }
            if self.begun.elapsed() >= self.plan.time {
                return self.outcome;
            }
            let wanted = self.number(&mut bytes).or_else(|| self.plan.answer.clone());
            let answered = self.exchange(kept.take(), &bytes, wanted.as_deref()).await;
            if answered.is_err() {
                *self.outcome.by_status.entry(0).or_default() += 1;
            }
            kept = answered.ok().flatten().filter(|_| self.plan.keeps);
        }
    }

    /// Writes the next number into the call.
    fn number(&self, bytes: &mut [u8]) -> Option<String> {
        let at = self.template.number_at?;
        let digits = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        bytes[at..at + digits.len()].copy_from_slice(digits.as_bytes());
        Some(digits)
    }

    async fn exchange(
        &mut self,
        kept: Option<Connection>,
        bytes: &[u8],
        wanted: Option<&str>,
    ) -> std::io::Result<Option<Connection>> {
        let sent = Instant::now();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.host).await?,
        };
        let answer = connection.exchange(bytes).await?;
        *self.outcome.by_status.entry(answer.status).or_default() += 1;
        if answer.status == 200 {
            self.outcome.is_good_after(sent.elapsed(), self.begun.elapsed());
            self.outcome.crossed +=
                u64::from(!wanted.is_none_or(|text| is_answered_with(&answer.body, text)));
        }
        self.outcome.surplus += u64::from(connection.has_surplus());
        Ok(Some(connection).filter(|_| !answer.is_last))
    }
}

/// True when the envelope's `response` is this.
fn is_answered_with(body: &[u8], wanted: &str) -> bool {
    const NAME: &[u8] = br#""response":"#;
    let Some(at) = body.windows(NAME.len()).position(|w| w == NAME) else { return false };
    let value = &body[at + NAME.len()..];
    value.starts_with(wanted.as_bytes()) && value.get(wanted.len()) == Some(&b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_another_call_is_told() {
        let body = br#"{"success":true,"response":1000000007,"ReplicaID":"a"}"#;
        assert!(is_answered_with(body, "1000000007"));
        assert!(!is_answered_with(body, "100000000"));
        assert!(!is_answered_with(body, "1000000008"));
        assert!(!is_answered_with(b"{}", "1000000007"));
    }

    #[test]
    fn outcomes_add_up() {
        let mut sum = Outcome::default();
        for (status, time_ms) in [(200, 5), (200, 150), (502, 0)] {
            let mut one = Outcome::default();
            one.by_status.insert(status, 1);
            if status == 200 {
                one.is_good_after(Duration::from_millis(1), Duration::from_millis(time_ms));
            }
            sum.add(one);
        }
        assert_eq!((sum.all(), sum.good(), sum.good_by_tenth), (3, 2, vec![1, 1]));
    }
}
