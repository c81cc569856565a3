//! The rules about calls.

use bytes::BufMut;
use millgate_contract::{
    frame::{AHEAD_SINCE, Frame, HEADER_BYTES, Outcome, RefusalReason, Role},
    limits,
    nursery::FromReplica,
};

use super::runtime::{Candidate, Kept};

/// Seconds that a call takes while something else is tried.
const MEANWHILE: &str = r#"{"sleep":1}"#;
/// A kind that no version of the protocol has.
const UNKNOWN_KIND: u8 = 250;

pub(crate) fn one_after_another(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    for value in
        ["null", "true", "-7", "0.5", r#""é \" \\ \u0001""#, r#"{"a":[1,{"b":[]}],"ü":{}}"#, "[[[]]]"]
    {
        peer.expect(&format!(r#"{{"echo":{value}}}"#), value)?;
    }
    // A connection is one of several, and the next caller's may be another's.
    drop(peer);
    runtime.connect()?.join(Role::Calls, "other")?.expect(r#"{"echo":"again"}"#, r#""again""#)
}

pub(crate) fn large(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let text = format!("\"{}\"", "x".repeat(limits::BODY_BYTES_MAX - 100));
    runtime.connect()?.join(Role::Calls, "gateway")?.expect(&format!(r#"{{"echo":{text}}}"#), &text)
}

pub(crate) fn in_pieces(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    let frame = peer.call_frame(r#"{"echo":[1,2]}"#);
    for byte in &frame {
        peer.send(&[*byte])?;
        peer.until_read()?;
    }
    peer.accepted()?;
    super::peer::expect_value(&peer.done()?, "[1,2]")
}

pub(crate) fn newer(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    let mut optional = [0; HEADER_BYTES + 3];
    (optional[0], optional[4], optional[5]) = (3, UNKNOWN_KIND, 1);
    peer.send(&optional)?;
    // A field behind those of the head, as a later version may append it.
    let mut frame = peer.call_frame(r#"{"echo":3}"#);
    let body_bytes = r#"{"echo":3}"#.len();
    let body = frame.split_off(frame.len() - body_bytes);
    frame.put_u32_le(0xffff_ffff);
    frame.extend_from_slice(&body);
    frame[0] += 4;
    frame[6] += 4;
    peer.send(&frame)?;
    peer.accepted()?;
    super::peer::expect_value(&peer.done()?, "3")
}

pub(crate) fn unknown(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    let mut frame = [0; HEADER_BYTES];
    frame[4] = UNKNOWN_KIND;
    peer.send(&frame)?;
    peer.expect_end()
}

pub(crate) fn garbage(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut good = runtime.connect()?.join(Role::Calls, "gateway")?;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 3]] {
        let mut bad = runtime.connect()?;
        bad.hello()?;
        // It may hang up in the middle of it.
        let _ = bad.send(garbage);
        good.expect(r#"{"echo":1}"#, "1")?;
    }
    Ok(())
}

pub(crate) fn busy(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut first = runtime.connect()?.join(Role::Calls, "gateway")?;
    let mut second = runtime.connect()?.join(Role::Calls, "other")?;
    first.begin(MEANWHILE)?;
    first.accepted()?;
    second.begin(r#"{"print":"the second call has run"}"#)?;
    match second.frame()? {
        Frame::Refused(id, RefusalReason::Busy) if id == second.id() => {}
        other => return Err(format!("while a call ran it answered another by {other:?}")),
    }
    first.done()?;
    // Refused is not the end of it.
    for _ in 0..100 {
        second.begin(r#"{"echo":2}"#)?;
        match second.frame()? {
            Frame::Refused(..) => std::thread::yield_now(),
            Frame::Accepted(id) if id == second.id() => {
                return super::peer::expect_value(&second.done()?, "2");
            }
            other => return Err(format!("it answered a call by {other:?}")),
        }
    }
    Err("it refuses for ever who was refused once".to_owned())
}

pub(crate) fn ahead(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?;
    if peer.hello()?.protocol.max < AHEAD_SINCE {
        return Ok(());
    }
    let mut peer = peer.join_as(AHEAD_SINCE, Role::Calls, "gateway")?;
    peer.begin(MEANWHILE)?;
    peer.accepted()?;
    let running = peer.id();
    peer.begin(r#"{"print":"a call that was given back has run"}"#)?;
    let mut aside = runtime.connect()?;
    aside.hello()?;
    let mut aside = aside.join_as(AHEAD_SINCE, Role::Aside, "gateway")?;
    aside.send(&Frame::Recall(running, peer.id()).encode())?;
    match peer.frame()? {
        Frame::Refused(id, RefusalReason::Busy) if id == peer.id() => {}
        other => return Err(format!("it answered a recall by {other:?}, not `Refused`")),
    }
    drop(aside);
    peer.begin(r#"{"echo":4}"#)?;
    match peer.frame()? {
        Frame::Done(done) if done.id == running => super::peer::expect_value(&done, "null")?,
        other => return Err(format!("it ended the call before them by {other:?}")),
    }
    peer.accepted()?;
    super::peer::expect_value(&peer.done()?, "4")
}

pub(crate) fn exception(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    let done = peer.call(r#"{"raise":"a text to be told"}"#)?;
    let text = String::from_utf8_lossy(&done.value);
    if done.outcome != Outcome::Exception || !text.contains("a text to be told") {
        return Err(format!("a function that failed came to {:?} `{text}`", done.outcome));
    }
    if done.is_leaving {
        return match runtime.next()? {
            Some(FromReplica::Leaving { .. }) => Ok(()),
            said => Err(format!("it said in `Done` that it leaves, and then {said:?}")),
        };
    }
    peer.expect(r#"{"echo":1}"#, "1")
}

pub(crate) fn bad_request(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    let done = peer.call("{")?;
    if done.outcome != Outcome::BadInput || done.value.is_empty() {
        return Err(format!("a body that is no JSON came to {:?}", done.outcome));
    }
    peer.expect(r#"{"echo":1}"#, "1")
}

pub(crate) fn control(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut control = runtime.connect()?.join(Role::Control, "gateway")?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    peer.expect(r#"{"echo":1}"#, "1")?;
    // Of a call that is over: it must meet no other.
    control.send(&Frame::Cancel(peer.id()).encode())?;
    peer.expect(r#"{"echo":2}"#, "2")?;
    control.send(&Frame::Cancel(millgate_contract::ids::CallId(1)).encode())?;
    control.until_read()?;
    // Takes its time: what was read of the other connection acts before it is over.
    super::peer::expect_value(&peer.call(MEANWHILE)?, "null")?;
    peer.expect(r#"{"echo":3}"#, "3")
}

pub(crate) fn print(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    peer.expect(r#"{"print":"a line to be seen"}"#, "null")?;
    runtime.expect_printed("a line to be seen")
}

pub(crate) fn drain(candidate: &Candidate) -> Kept {
    let mut runtime = candidate.ready()?;
    let mut peer = runtime.connect()?.join(Role::Calls, "gateway")?;
    peer.begin(MEANWHILE)?;
    peer.accepted()?;
    runtime.terminate();
    super::peer::expect_value(&peer.done()?, "null")?;
    match runtime.next()? {
        Some(FromReplica::Leaving { .. }) => runtime.ended(),
        said => Err(format!("it said {said:?} after its last call, not `leaving`")),
    }
}
