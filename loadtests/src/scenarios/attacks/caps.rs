//! More connections than there are places or descriptors.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::{AT_ONCE, Found, MODEL, call};
use crate::{
    http::stream_from,
    server::{Model, Server},
};

/// Of one address; the server has fewer places for it.
const OF_ONE_ADDRESS: usize = 8_100;
/// Descriptors of a server that soon has none left, and connections to it.
const FEW_DESCRIPTORS: u32 = 256;
const MANY: usize = 400;
/// Silent connections are ended after ten seconds; then there are descriptors again.
const BACK: Duration = Duration::from_secs(20);

pub(super) async fn all(model: &Model) -> Vec<Found> {
    vec![one_address(model).await, no_descriptors().await]
}

/// One address cannot take the places of another.
async fn one_address(model: &Model) -> Found {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 3, 1));
    let (mut open, mut faults) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for _ in 0..OF_ONE_ADDRESS {
        match stream_from(address, &model.host, None).await {
            Ok(stream) => open.push(stream),
            Err(error) => {
                faults.push(format!("after {} connections: {error}", open.len()));
                break;
            }
        }
    }
    let took = begun.elapsed();
    if let Some(last) = open.last_mut()
        && !ends(last, AT_ONCE).await
    {
        faults.push("the last one must be closed".to_owned());
    }
    if !call(model, "1").await.is_ok_and(|answer| answer.status == 200) {
        faults.push("a good caller at another address is not served".to_owned());
    }
    let text = format!("{} opened in {:.1} s, the last one closed", open.len(), took.as_secs_f64());
    Found::new("connections of one address", text, faults)
}

/// True when the other side ends it in this time.
async fn ends(stream: &mut TcpStream, time: Duration) -> bool {
    let mut byte = [0];
    matches!(timeout(time, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

/// A server that has run out of descriptors goes on serving whom it has, and others when it has some again.
async fn no_descriptors() -> Found {
    let server = Server::start_limited("", Some(FEW_DESCRIPTORS));
    let model = server.deploy("few", MODEL, &[]);
    let pid = server.pid();
    let mut kept = crate::http::Connection::open(&model.host).await.expect("the server accepts");
    let good = super::good(&model, "1");
    let mut faults = Vec::new();
    let mut is_served = async |when: &str, faults: &mut Vec<String>| {
        let answer = timeout(AT_ONCE, kept.exchange(&good)).await;
        if !answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200)) {
            faults.push(format!("a caller with a connection is not served {when}"));
        }
    };
    is_served("before", &mut faults).await;
    let mut open = Vec::new();
    for _ in 0..MANY {
        open.extend(TcpStream::connect(&model.host).await);
    }
    let used = crate::processes::descriptors(pid);
    if used + 1 < FEW_DESCRIPTORS as usize {
        faults.push(format!("it has descriptors left: {used} of {FEW_DESCRIPTORS} used"));
    }
    is_served("without descriptors", &mut faults).await;
    let begun = Instant::now();
    let mut served = false;
    while !served && begun.elapsed() < BACK {
        let answer = timeout(BACK.saturating_sub(begun.elapsed()), call(&model, "1")).await;
        served = answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200));
    }
    if !served {
        faults.push(format!("a new caller is not served within {} s", BACK.as_secs()));
    }
    if server.pid() != pid || !crate::processes::is_alive(pid) {
        faults.push("the server has ended".to_owned());
    }
    let text = format!(
        "{} connections, a new caller served after {:.1} s",
        open.len(),
        begun.elapsed().as_secs_f64()
    );
    drop(open);
    Found::new("out of descriptors", text, faults)
}
