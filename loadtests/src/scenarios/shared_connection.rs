//! A function that opens a connection when its file is imported. Forks would share it and read each other's answers,
//! so replicas must not be forks. Then the server behind the connection drops it, and a restart must heal that.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    figures::Figures,
    load::{Plan, load},
    server::Server,
};

const CALLERS: usize = 8;
const CONFIGURATION: &str = "request_timeout_s = 5\n";

/// In which another call could take an answer.
const MOMENT: Duration = Duration::from_millis(2);

/// Says every line again, after a moment.
struct Backend {
    port: u16,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let backend = Backend::start();
    let server = Server::start_with(CONFIGURATION);
    let model = server.deploy("asks", &python(backend.port), &["--replicas", "4"]);
    let shown = server.show("asks");
    figures.show("start mode", shown["start_mode"].as_str().unwrap_or_default());
    figures.show("its reason", shown["start_mode_reason"].as_str().unwrap_or_default());
    let plan = Plan::numbered(CALLERS, time / 3);

    let before = load(&model, &plan).await;
    figures.show("answers", before.statuses());
    figures.must_be("other than 200", before.all() - before.good(), 0);
    figures.show("connections dropped by the other server", backend.bounce());
    let broken = load(&model, &plan).await;
    figures.show("answers without a connection", broken.statuses());
    figures.must_be("good answers without a connection", broken.good(), 0);
    server.millgate(&["restart", "asks"]);
    let healed = load(&model, &plan).await;
    figures.show("answers after `restart`", healed.statuses());
    figures.must_be("other than 200 after `restart`", healed.all() - healed.good(), 0);
    figures.must_be("crossed", before.crossed + broken.crossed + healed.crossed, 0);
    figures
}

fn python(port: u16) -> String {
    format!(
        "\
import socket
stream = socket.create_connection(('127.0.0.1', {port})).makefile('rw')
def predict(args):
    stream.write(str(args['n']) + '\\n')
    stream.flush()
    return int(stream.readline())
"
    )
}

impl Backend {
    /// On threads that end with this program.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(kept) = stream.try_clone() {
                    accepted.lock().expect("nobody panics with it").push(kept);
                }
                std::thread::spawn(move || echo(&stream));
            }
        });
        Self { port, connections }
    }

    /// Drops all connections, and goes on listening; how many there were.
    fn bounce(&self) -> usize {
        let dropped = std::mem::take(&mut *self.connections.lock().expect("nobody panics with it"));
        dropped.iter().filter(|stream| stream.shutdown(Shutdown::Both).is_ok()).count()
    }
}

fn echo(stream: &TcpStream) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        std::thread::park_timeout(MOMENT);
        let mut back = stream;
        if writeln!(back, "{line}").is_err() {
            return;
        }
    }
}
