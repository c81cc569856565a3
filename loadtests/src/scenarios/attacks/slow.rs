//! Callers that are slow, or say nothing, or do not listen. All at once, for each takes as long as the server lets it.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Found, call, good};
use crate::server::Model;

/// How much later than its limit a connection may end.
const SLACK: Duration = Duration::from_secs(2);

pub(super) async fn all(model: &Model) -> Vec<Found> {
    let whole = good(model, r#""0123456789012345678901234567890123456789""#);
    let head_bytes = whole.windows(4).position(|w| w == b"\r\n\r\n").expect("a head has an end") + 4;
    let (head, body) = whole.split_at(head_bytes);
    let upload = format!(
        "POST /api/v2/projects HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 9000\r\n\r\n",
        model.api_key
    );
    let kept = good(model, "1");
    let rows = [
        ("nothing is sent", &b""[..], &b""[..], 10),
        ("half a head, then nothing", &head[..20], b"", 20),
        ("a head of one byte a second", b"", head, 30),
        ("a head, then nothing", head, b"", 30),
        ("a body of one byte a second", head, body, 30),
        ("an upload of one byte a second", upload.as_bytes(), &[b'x'; 100], 60),
        ("nothing after an answer", &kept, b"", 75),
    ];
    let mut running = JoinSet::new();
    for (name, first, then, seconds) in rows {
        let (model, first, then) = (model.clone(), first.to_vec(), then.to_vec());
        running.spawn(async move { ends(&model, name, &first, &then, seconds).await });
    }
    let (deaf_model, patient_model) = (model.clone(), model.clone());
    running.spawn(async move { deaf(&deaf_model).await });
    running.spawn(async move { patient(&patient_model).await });
    running.join_all().await
}

/// Sends the first bytes at once, the others one a second: the connection must end within so many seconds, with an
/// answer or without one, and not as a call.
async fn ends(model: &Model, name: &str, first: &[u8], then: &[u8], seconds: u64) -> Found {
    let mut stream = TcpStream::connect(&model.host).await.expect("the server accepts");
    stream.write_all(first).await.expect("the server reads");
    let begun = Instant::now();
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        for byte in then {
            sleep(Duration::from_secs(1)).await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut received = Vec::new();
    let most = Duration::from_secs(seconds) + SLACK;
    let closed = tokio::select! {
        closed = timeout(most, read.read_to_end(&mut received)) => closed.is_ok(),
        () = sending => false,
    };
    let took = begun.elapsed();
    let status = String::from_utf8_lossy(&received).split(' ').nth(1).unwrap_or("no answer").to_owned();
    let text = format!("{status}, closed after {:.1} s", took.as_secs_f64());
    let faults = if closed { vec![] } else { vec![format!("not closed within {seconds} s")] };
    Found::new(format!("slow: {name}"), text, faults)
}

/// Asks for much and reads nothing: the replica is free for the next caller, and the connection ends.
async fn deaf(model: &Model) -> Found {
    let mut faults = Vec::new();
    let mut stream = TcpStream::connect(&model.host).await.expect("the server accepts");
    stream.write_all(&good(model, r#"{"do":"much"}"#)).await.expect("the server reads");
    // Until its answer has begun.
    let mut one = [0];
    stream.read_exact(&mut one).await.expect("it is answered");
    let begun = Instant::now();
    if !call(model, "1").await.is_ok_and(|answer| answer.status == 200) {
        faults.push("its replica is not free".to_owned());
    }
    let free_after = begun.elapsed();
    sleep(Duration::from_secs(35)).await;
    let mut rest = Vec::new();
    let _ = timeout(SLACK, stream.read_to_end(&mut rest)).await;
    if rest.len() > 14_900_000 {
        faults.push("the whole answer was kept for it".to_owned());
    }
    let text = format!(
        "replica free after {} ms, {:.1} of 15 MB sent",
        free_after.as_millis(),
        rest.len() as f64 / 1e6
    );
    Found::new("slow: an answer that is not read", text, faults)
}

/// A good caller that calls every 20 s on one connection is never cut off.
async fn patient(model: &Model) -> Found {
    let mut connection = crate::http::Connection::open(&model.host).await.expect("the server accepts");
    let mut answers = 0;
    for _ in 0..4 {
        if connection.exchange(&good(model, "1")).await.is_ok_and(|answer| answer.status == 200) {
            answers += 1;
        }
        sleep(Duration::from_secs(20)).await;
    }
    let faults = if answers == 4 { vec![] } else { vec!["must be 4".to_owned()] };
    Found::new("slow: four calls on one connection, 20 s apart", format!("{answers} answers"), faults)
}
