//! Thousands of sockets that are slow, silent, or deaf, from many addresses: whatever the server ends, another takes its
//! place. What good callers notice of them, and what they cost.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use super::ECHO;
use crate::{
    figures::{Figures, as_mb, ms},
    http::{request, stream_from},
    load::{Plan, load_apart},
    processes::{self, OwnCpu},
    server::{Model, Server},
};

const SOCKETS: u32 = 5_000;
/// This program's, and as many the server's.
const DESCRIPTORS: u64 = 20_000;
const MUCH: &str = "def predict(args):\n    return 'x' * 65_000\n";
const GOOD_CALLERS: usize = 4;
const GOOD_PER_S: f64 = 400.0;
const P99_TIMES_MAX: f64 = 2.0;
const MEMORY_MB_MAX: f64 = 200.0;
/// Between two bytes of those that are slow.
const PACE: Duration = Duration::from_secs(1);
/// A caller that reads nothing is let go of after half a minute; then it comes again.
const DEAF: Duration = Duration::from_secs(35);
/// Until all have come.
const ARRIVAL: Duration = Duration::from_secs(3);
/// What is compared with: the same callers alone.
const ALONE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
enum Manner {
    Silent,
    HeadByByte,
    BodyByByte,
    Deaf,
}

/// What is sent, and how many are there.
struct Crowd {
    host: String,
    head: Vec<u8>,
    body: Vec<u8>,
    much: Vec<u8>,
    open: Cell<u32>,
    opened: Cell<u64>,
    not_opened: Cell<u64>,
}

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let descriptors = processes::raise_descriptors(DESCRIPTORS);
    figures.show("descriptors this program may have", descriptors);
    let server = Server::start();
    let model = server.deploy("echo", ECHO, &["--replicas", "2"]);
    let much = server.deploy("much", MUCH, &["--replicas", "1"]);
    let good = |time| load_apart(&model, Plan::paced(GOOD_CALLERS, time, GOOD_PER_S));
    let alone = good(ALONE_MAX.min(time)).await.expect("the callers do not panic");
    let before = processes::rss_bytes(server.pid());

    let crowd = Rc::new(Crowd::new(&model, &much));
    let mut sockets = JoinSet::new();
    for number in 0..SOCKETS {
        sockets.spawn_local(Rc::clone(&crowd).be_slow(number));
    }
    sleep(ARRIVAL).await;
    let own = OwnCpu::measure();
    let crowded = good(time);
    let (mut most, mut fewest) = (before, crowd.open.get());
    while !crowded.is_finished() {
        sleep(PACE / 2).await;
        most = most.max(processes::rss_bytes(server.pid()));
        fewest = fewest.min(crowd.open.get());
    }
    let crowded = crowded.await.expect("the callers do not panic");
    let own = own.text();
    drop(sockets);

    figures.show("share of one core that callers and slow sockets took", own);
    figures.aim_at_least("slow sockets at any time, least", f64::from(fewest), f64::from(SOCKETS) * 0.95, "");
    figures.show("of them opened anew", crowd.opened.get());
    figures.show("could not be opened", crowd.not_opened.get());
    let ([p50, p99], [p50_crowded, p99_crowded]) =
        (alone.quantiles([0.5, 0.99]), crowded.quantiles([0.5, 0.99]));
    figures.show("good callers alone, p50, p99", format!("{}, {}", ms(p50), ms(p99)));
    figures.show("with slow sockets, p50, p99", format!("{}, {}", ms(p50_crowded), ms(p99_crowded)));
    let times = p99_crowded.as_secs_f64() / p99.as_secs_f64();
    figures.aim_at_most("p99 with ÷ without", times, P99_TIMES_MAX, "");
    let failed = |outcome: &crate::load::Outcome| outcome.all() - outcome.good();
    figures.must_be("good callers: other than 200", failed(&alone) + failed(&crowded), 0);
    figures.must_be("good callers: crossed", alone.crossed + crowded.crossed, 0);
    figures.at_most("memory of the server, MB more", (as_mb(most) - as_mb(before)).round(), MEMORY_MB_MAX);
    figures
}

impl Crowd {
    fn new(model: &Model, much: &Model) -> Self {
        let whole =
            request(&model.host, "/model", &model.api_key, &model.body(&format!("{:?}", "x".repeat(4_000))));
        let head_bytes = whole.windows(4).position(|w| w == b"\r\n\r\n").expect("a head has an end") + 4;
        let (head, body) = whole.split_at(head_bytes);
        Self {
            host: model.host.clone(),
            head: head.to_vec(),
            body: body.to_vec(),
            much: request(&much.host, "/model", &much.api_key, &much.body("1")),
            open: Cell::new(0),
            opened: Cell::new(0),
            not_opened: Cell::new(0),
        }
    }

    /// One socket after another, each from the same address, until nobody waits for it any more.
    async fn be_slow(self: Rc<Self>, number: u32) {
        let manners = [Manner::Silent, Manner::HeadByByte, Manner::BodyByByte, Manner::Deaf];
        let manner = manners[number as usize % manners.len()];
        // Two hundred addresses beside the one that good callers have.
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, (number % 200) as u8 + 1));
        sleep(ARRIVAL.mul_f64(0.8 * f64::from(number) / f64::from(SOCKETS))).await;
        loop {
            let Ok(stream) = stream_from(address, &self.host, Some(4_096)).await else {
                self.not_opened.set(self.not_opened.get() + 1);
                sleep(PACE).await;
                continue;
            };
            self.opened.set(self.opened.get() + 1);
            self.open.set(self.open.get() + 1);
            match manner {
                Manner::Silent => ends(stream, &[], &[]).await,
                Manner::HeadByByte => ends(stream, &[], &self.head).await,
                Manner::BodyByByte => ends(stream, &self.head, &self.body).await,
                Manner::Deaf => self.is_deaf(stream).await,
            }
            self.open.set(self.open.get() - 1);
        }
    }

    async fn is_deaf(&self, mut stream: TcpStream) {
        if stream.write_all(&self.much).await.is_ok() {
            sleep(DEAF).await;
        }
    }
}

/// Sends the first bytes at once and the others one by one, until the server ends it.
async fn ends(stream: TcpStream, first: &[u8], then: &[u8]) {
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        let _ = write.write_all(first).await;
        for byte in then {
            sleep(PACE).await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut received = [0; 512];
        while matches!(read.read(&mut received).await, Ok(1..)) {}
    };
    tokio::select! {
        () = sending => {}
        () = reading => {}
    }
}
