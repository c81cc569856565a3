//! What a process prints.

use std::{
    io::Read as _,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex},
};

use super::PATIENCE;

/// What is printed, collected by a thread.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Printed>, Condvar)>);

#[derive(Default)]
struct Printed {
    text: String,
    is_over: bool,
}

impl Log {
    pub(super) fn new() -> (Self, OwnedFd) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let log = Self::default();
        let shared = log.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                shared.0.0.lock().unwrap().text.push_str(&String::from_utf8_lossy(&chunk[..count]));
                shared.0.1.notify_all();
            }
            shared.0.0.lock().unwrap().is_over = true;
            shared.0.1.notify_all();
        });
        (log, writer.into())
    }

    /// What has come so far.
    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }

    /// Waits until `text` is in it.
    pub fn wait_for(&self, text: &str) {
        self.wait(&format!("`{text}`"), |log| log.text.contains(text));
    }

    /// All of it: waits until nobody can write to it any more.
    pub fn whole(&self) -> String {
        self.wait("the end", |log| log.is_over);
        self.text()
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Printed) -> bool) {
        let guard = self.0.0.lock().unwrap();
        let (log, result) = self.0.1.wait_timeout_while(guard, PATIENCE, |log| !is_so(log)).unwrap();
        assert!(!result.timed_out(), "{what} is not in the log:\n{}", log.text);
    }
}
