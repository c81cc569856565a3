//! Callers that hang up, at each point of a call and in each way: no replica is lost, and no function runs for who left the
//! line.

use std::sync::Arc;

use millgate_contract::frame::Outcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    double::{Act, Double},
    house::{House, call},
};

/// How a caller goes away.
#[derive(Debug, Clone, Copy)]
enum Way {
    Close,
    Reset,
    /// It sends no more, and would still read.
    HalfClose,
}

/// What it has sent behind its request.
#[derive(Debug, Clone, Copy)]
enum Behind {
    Nothing,
    Call,
    Megabyte,
}

/// Where in the call it goes.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// So many bytes of its request are sent.
    Sending(usize),
    InLine,
    /// In the same instant as its turn comes.
    Granted,
    /// The replica has read the call.
    Sent,
    Accepted,
    /// The answer is being written, and is larger than all buffers.
    Answered,
}

impl Way {
    async fn go(self, mut stream: TcpStream) -> Option<TcpStream> {
        match self {
            Self::Close => None,
            Self::Reset => {
                stream.set_zero_linger().unwrap();
                None
            }
            Self::HalfClose => {
                // Who has been refused and closed to already cannot be.
                let _ = stream.shutdown().await;
                Some(stream)
            }
        }
    }
}

impl Behind {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Call => call("\"behind\""),
            Self::Megabyte => vec![b'x'; 1_000_000],
        }
    }
}

/// An answer of the largest size.
fn large() -> &'static str {
    Box::leak(format!("\"{}\"", "x".repeat(20_000_000)).into_boxed_str())
}

struct Scene {
    house: House,
    double: Double,
    large: &'static str,
}

impl Scene {
    async fn new() -> Self {
        let (house, double) = House::with_acts(1, vec![]).await;
        Self { house, double, large: large() }
    }

    /// A caller comes as far as `point` and goes.
    async fn play(&self, point: Point, way: Way, behind: Behind) {
        let (house, double) = (&self.house, &self.double);
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        let go = Arc::new(Notify::new());
        let before = double.read().len();
        let send = async |stream: &mut TcpStream| {
            stream.write_all(&[call("\"gone\""), behind.bytes()].concat()).await.unwrap();
        };
        match point {
            Point::Sending(bytes) => {
                stream.write_all(&call("\"gone\"")[..bytes]).await.unwrap();
                let _kept = way.go(stream).await;
            }
            Point::InLine | Point::Granted => {
                double.will(Act::Hold(go.clone()));
                let mut running = house.begin("1").await;
                double.until_read(before + 1).await;
                send(&mut stream).await;
                house.until_in_line(1).await;
                if matches!(point, Point::Granted) {
                    go.notify_one();
                }
                let _kept = way.go(stream).await;
                house.until_in_line(0).await;
                go.notify_one();
                assert_eq!(running.answer().await.status, 200);
            }
            Point::Sent | Point::Accepted => {
                let is_sent = matches!(point, Point::Sent);
                double.will(if is_sent { Act::Late(go.clone()) } else { Act::Hold(go.clone()) });
                send(&mut stream).await;
                double.until_read(before + 1).await;
                let _kept = way.go(stream).await;
                let mut next = house.begin("2").await;
                house.until_in_line(1).await;
                go.notify_one();
                assert_eq!(next.answer().await.status, 200);
            }
            Point::Answered => {
                double.will(Act::End(Outcome::Ok, self.large));
                send(&mut stream).await;
                stream.read_u8().await.unwrap();
                let _kept = way.go(stream).await;
            }
        }
    }
}

const WAYS: [Way; 3] = [Way::Close, Way::Reset, Way::HalfClose];
const BEHIND: [Behind; 3] = [Behind::Nothing, Behind::Call, Behind::Megabyte];

#[tokio::test]
async fn at_no_point_of_a_call_does_any_way_of_hanging_up_lose_a_replica() {
    let scene = Scene::new().await;
    let bytes = call("\"gone\"").len();
    let points = [Point::InLine, Point::Granted, Point::Sent, Point::Accepted, Point::Answered];
    let points = points.into_iter().chain((0..bytes).step_by(7).map(Point::Sending));
    for point in points {
        for (way, behind) in WAYS.into_iter().flat_map(|way| BEHIND.map(|behind| (way, behind))) {
            if matches!((point, behind), (Point::Sending(_), Behind::Call | Behind::Megabyte)) {
                continue;
            }
            let what = format!("{point:?} {way:?} {behind:?}");
            let before = scene.double.read();
            scene.play(point, way, behind).await;
            // It is the very same replica, and free.
            let answer = scene.house.call("3").await;
            assert!(answer.body.contains("\"response\":3,\"ReplicaID\":\"d1-r0\""), "{what}: {answer:?}");
            let read = &scene.double.read()[before.len()..];
            let of_gone = read.iter().filter(|request| *request == "\"gone\"").count();
            let runs = match point {
                Point::Sending(_) | Point::InLine => 0..=0,
                Point::Granted => 0..=1,
                Point::Sent | Point::Accepted | Point::Answered => 1..=1,
            };
            assert!(runs.contains(&of_gone), "{what}: {read:?}");
            assert!(!read.contains(&"\"behind\"".to_owned()), "{what}: {read:?}");
        }
    }
}

#[tokio::test]
async fn a_replica_is_free_before_the_last_byte_of_its_answer_is_sent() {
    let scene = Scene::new().await;
    scene.double.will(Act::End(Outcome::Ok, scene.large));
    let mut slow = scene.house.begin("1").await;
    scene.double.until_read(1).await;
    for _ in 0..3 {
        let answer = scene.house.call("2").await;
        assert!(answer.body.contains("\"response\":2,\"ReplicaID\":\"d1-r0\""), "{answer:?}");
    }
    let answer = slow.answer().await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(scene.large), "the answer that waited is whole");
}
