//! Many callers at once, each answer checked against its own call.

use std::{
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    http::{Connection, request},
    server::Model,
};

/// What came back.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Answers by status; 0 is a connection that broke before its answer.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Answers with status 200 that were another call's.
    pub(crate) crossed: u64,
    /// Times of the answers with status 200.
    pub(crate) times: Vec<Duration>,
    /// How long it went on.
    pub(crate) took: Duration,
}

impl Outcome {
    pub(crate) fn good(&self) -> u64 {
        self.status(200)
    }

    pub(crate) fn status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// Good answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.good() as f64 / self.took.as_secs_f64()
    }

    /// Times of good answers, sorted.
    pub(crate) fn sorted(&self) -> Vec<Duration> {
        let mut times = self.times.clone();
        times.sort_unstable();
        times
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        self.crossed += other.crossed;
        self.times.extend(other.times);
    }
}

/// How to load.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) callers: usize,
    pub(crate) time: Duration,
    /// Time between the beginnings of two calls of one caller; none is as fast as it can.
    pub(crate) interval: Option<Duration>,
    /// Each call carries its own number as `{"n": N}` and its answer must be that number.
    pub(crate) is_numbered: bool,
    /// The request where calls are not numbered.
    pub(crate) request: String,
}

impl Plan {
    /// Numbered calls as fast as they are answered.
    pub(crate) fn numbered(callers: usize, time: Duration) -> Self {
        Self { callers, time, interval: None, is_numbered: true, request: String::new() }
    }
}

/// Loads a model until the time is over and every call is answered.
pub(crate) async fn load(model: &Model, plan: &Plan) -> Outcome {
    let begun = Instant::now();
    let local = tokio::task::LocalSet::new();
    let model = Rc::new(model.clone());
    let plan = Rc::new(plan.clone());
    let mut outcome = local
        .run_until(async {
            let mut callers = JoinSet::new();
            for caller in 0..plan.callers {
                let (model, plan) = (Rc::clone(&model), Rc::clone(&plan));
                callers.spawn_local(async move { call_until(&model, &plan, caller, begun).await });
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

async fn call_until(model: &Model, plan: &Plan, caller: usize, begun: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut connection = None;
    let mut count = 0_u64;
    let mut next = tokio::time::Instant::now();
    while begun.elapsed() < plan.time {
        if let Some(interval) = plan.interval {
            next += interval;
            tokio::time::sleep_until(next).await;
        }
        let number = (caller as u64) << 32 | count;
        count += 1;
        let body = if plan.is_numbered { format!(r#"{{"n":{number}}}"#) } else { plan.request.clone() };
        let bytes = request(&model.host, "/model", &model.api_key, &model.body(&body));
        let sent = Instant::now();
        let answer = match connection.take() {
            Some(connection) => exchange(connection, &bytes).await,
            None => match Connection::open(&model.host).await {
                Ok(connection) => exchange(connection, &bytes).await,
                Err(error) => Err(error),
            },
        };
        match answer {
            Ok((kept, answer)) => {
                connection = Some(kept);
                *outcome.by_status.entry(answer.status).or_default() += 1;
                if answer.status == 200 {
                    outcome.times.push(sent.elapsed());
                    if plan.is_numbered && !is_answer_to(&answer.body, number) {
                        outcome.crossed += 1;
                    }
                }
            }
            Err(_) => *outcome.by_status.entry(0).or_default() += 1,
        }
    }
    outcome
}

async fn exchange(
    mut connection: Connection,
    bytes: &[u8],
) -> std::io::Result<(Connection, crate::http::Answer)> {
    let answer = connection.exchange(bytes).await?;
    Ok((connection, answer))
}

/// True when the envelope's `response` is this number.
fn is_answer_to(body: &[u8], number: u64) -> bool {
    let wanted = format!(r#""response":{number},"#);
    body.windows(wanted.len()).any(|w| w == wanted.as_bytes())
}
