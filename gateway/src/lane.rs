//! A way off the calls' threads: a bounded queue to a thread of its own, which takes what has come in batches. Whoever
//! offers never waits: what finds the queue full is lost, and counted.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

/// How long a batch is gathered after its first item: a thread that sleeps is woken once for all of them.
const GATHER: Duration = Duration::from_millis(50);
/// Items of one batch.
const BATCH_MAX: usize = 1_024;

/// What happens at the other end.
pub(crate) trait Drain<T>: Send + 'static {
    /// Takes a batch, and leaves it empty.
    fn take(&mut self, batch: &mut Vec<T>);
}

enum Message<T> {
    Item(T),
    /// Everything before it is to be taken, then this is to be told.
    Flush(oneshot::Sender<()>),
}

/// The way. Dropping it waits until everything offered is taken.
pub(crate) struct Lane<T> {
    sender: Option<SyncSender<Message<T>>>,
    thread: Option<JoinHandle<()>>,
    lost: Counter,
}

impl<T: Send + 'static> Lane<T> {
    /// Starts the thread. At most `waiting_max` items wait for it.
    pub(crate) fn start(
        name: &str,
        waiting_max: usize,
        lost: Counter,
        drain: impl Drain<T>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(waiting_max);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&receiver, drain))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), lost })
    }

    /// Gives an item away, or loses it.
    pub(crate) fn offer(&self, item: T) {
        let sender = self.sender.as_ref().expect("the sender goes when the lane does");
        if sender.try_send(Message::Item(item)).is_err() {
            self.lost.inc();
        }
    }

    /// Waits until everything that was offered before is taken. `false` when the queue is full.
    pub(crate) async fn flush(&self) -> bool {
        let (say, taken) = oneshot::channel();
        let sender = self.sender.as_ref().expect("the sender goes when the lane does");
        if sender.try_send(Message::Flush(say)).is_err() {
            return false;
        }
        self.wake();
        taken.await.is_ok()
    }

    /// Ends the gathering of a batch. The thread may also wait for its first item: a wake-up too many does no harm.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has panicked or it has ended; there is nothing left to do for it.
            let _ = thread.join();
        }
    }
}

fn run<T>(receiver: &Receiver<Message<T>>, mut drain: impl Drain<T>) {
    let mut batch = Vec::new();
    while let Ok(first) = receiver.recv() {
        if matches!(first, Message::Item(_)) {
            thread::park_timeout(GATHER);
        }
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Item(item) => batch.push(item),
                Message::Flush(say) => {
                    drain.take(&mut batch);
                    // Whoever asked may be gone.
                    let _ = say.send(());
                }
            }
            next = if batch.len() < BATCH_MAX { receiver.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            drain.take(&mut batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    /// Keeps what it takes; waits to be let go on before each batch.
    struct Kept {
        batches: Arc<Mutex<Vec<Vec<u32>>>>,
        go_on: Receiver<()>,
    }

    impl Drain<u32> for Kept {
        fn take(&mut self, batch: &mut Vec<u32>) {
            let _ = self.go_on.recv();
            self.batches.lock().unwrap().push(std::mem::take(batch));
        }
    }

    #[tokio::test]
    async fn what_finds_the_queue_full_is_counted_and_the_rest_arrives_in_order() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let (let_go_on, go_on) = mpsc::channel();
        let lost = Counter::default();
        let kept = Kept { batches: Arc::clone(&batches), go_on };
        let lane = Lane::start("test", 4, lost.clone(), kept).unwrap();
        // The thread takes some of them and is then held; four more wait.
        for item in 0..10_000 {
            lane.offer(item);
        }
        assert!(lost.get() > 0, "nobody waits for a thread that is held");
        drop(let_go_on);
        while !lane.flush().await {
            tokio::task::yield_now().await;
        }
        let taken: Vec<u32> = batches.lock().unwrap().iter().flatten().copied().collect();
        assert_eq!(taken.len() as u64 + lost.get(), 10_000);
        assert!(taken.is_sorted() && taken[0] == 0);
    }

    #[test]
    fn its_end_waits_until_everything_is_taken() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let (let_go_on, go_on) = mpsc::channel();
        drop(let_go_on);
        let kept = Kept { batches: Arc::clone(&batches), go_on };
        let lane = Lane::start("test", 5_000, Counter::default(), kept).unwrap();
        for item in 0..5_000 {
            lane.offer(item);
        }
        drop(lane);
        let batches = batches.lock().unwrap();
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 5_000);
        assert!(batches.iter().all(|batch| batch.len() <= BATCH_MAX));
    }
}
