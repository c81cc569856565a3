//! Running out of descriptors. The limit is a process's, so the gateway runs in a child that has few.

use std::{
    env,
    net::{SocketAddr, TcpStream as StdStream},
    process::{Command, Stdio},
};

use crate::{
    house::{House, call},
    http::Caller,
};

/// Set for the child.
const CHILD: &str = "MILLGATE_TEST_FEW_DESCRIPTORS";
const NAME: &str = "descriptors::the_accept_loop_survives_running_out_of_descriptors";
/// What the child may have open.
const DESCRIPTORS: usize = 64;

#[test]
fn the_accept_loop_survives_running_out_of_descriptors() {
    if env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    // Only a shell can lower a limit without unsafe code.
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$0\" --exact {NAME} --nocapture");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(env::current_exe().unwrap())
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("served again"), "{text}");
}

/// Takes all descriptors, half of them for connections that wait to be accepted; the process is the gateway's too.
#[tokio::main(flavor = "current_thread")]
async fn few_descriptors() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let mut kept = house.caller().await;
    kept.send(&call("1")).await;
    assert_eq!(kept.answer().await.status, 200);
    let taken = take_all(house.address);
    assert!(taken.len() > DESCRIPTORS / 4, "{}", taken.len());
    // The loop finds nothing to accept with, again and again, and who is connected is served all the while.
    for _ in 0..50 {
        kept.send(&call("2")).await;
        assert_eq!(kept.answer().await.status, 200);
    }
    drop(taken);
    let mut next = Caller::connect(house.address).await;
    next.send(&call("3")).await;
    assert_eq!(next.answer().await.status, 200);
    println!("served again");
}

/// Connects until there is no descriptor left for either side.
fn take_all(address: SocketAddr) -> Vec<StdStream> {
    let mut taken = Vec::new();
    while let Ok(stream) = StdStream::connect(address) {
        taken.push(stream);
    }
    taken
}
