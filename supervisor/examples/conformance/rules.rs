//! The rules, each with its check. A check starts a process of its own, so that none depends on another.

use millgate_contract::{
    frame::{PROTOCOL, Role},
    ids::{ReplicaId, SlotIndex},
    line,
    nursery::{FromReplica, ToSpare},
};

use super::{
    calls,
    runtime::{Candidate, Kept, REPLICA, expect_example},
};

/// One rule.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// What it says, for people.
    pub(crate) says: &'static str,
    pub(crate) check: fn(&Candidate) -> Kept,
}

/// All of them, in the order of a replica's life.
pub(crate) const ALL: &[Rule] = &[
    Rule { name: "start", says: "`Here`, wait for the byte, run the example, `Ready`", check: start },
    Rule {
        name: "missing-function",
        says: "a function that is not there is `Failed`, and the end",
        check: missing,
    },
    Rule { name: "spare", says: "without a slot: `Warm`, wait for a listener, serve", check: spare },
    Rule { name: "spare-leaves", says: "a spare that is told to leave ends", check: spare_leaves },
    Rule { name: "hello", says: "`Hello` comes first and is true; one nonce in one process", check: hello },
    Rule {
        name: "version",
        says: "a `Join` of a version outside of its range is hung up on",
        check: version,
    },
    Rule {
        name: "call",
        says: "`Accepted` and then `Done`, both with the call's id",
        check: calls::one_after_another,
    },
    Rule { name: "large", says: "a request of 5 MB comes, and goes back", check: calls::large },
    Rule { name: "pieces", says: "a frame may come byte by byte", check: calls::in_pieces },
    Rule {
        name: "newer-frames",
        says: "unknown optional frames and appended fields are skipped",
        check: calls::newer,
    },
    Rule {
        name: "unknown-frame",
        says: "an unknown frame that is not optional ends its connection",
        check: calls::unknown,
    },
    Rule { name: "garbage", says: "garbage ends its own connection and no other", check: calls::garbage },
    Rule {
        name: "busy",
        says: "while a call runs, another is `Refused` at once and not run",
        check: calls::busy,
    },
    Rule {
        name: "ahead",
        says: "with version 3: calls behind a running one run in order, or are given back",
        check: calls::ahead,
    },
    Rule { name: "exception", says: "an exception is an outcome, with its text", check: calls::exception },
    Rule {
        name: "bad-request",
        says: "a body that is no JSON is `BadInput`, and no end",
        check: calls::bad_request,
    },
    Rule { name: "control", says: "a connection for control disturbs no call", check: calls::control },
    Rule { name: "print", says: "what is printed is out before its call is done", check: calls::print },
    Rule {
        name: "drain",
        says: "TERM: the running call is answered, then `Leaving`, then the end",
        check: calls::drain,
    },
    Rule { name: "orphan", says: "the supervisor's end is the process's end", check: orphan },
];

fn start(candidate: &Candidate) -> Kept {
    candidate.ready().map(drop)
}

fn missing(candidate: &Candidate) -> Kept {
    let mut runtime =
        candidate.start(true, |spec| "there_is_no_such_function".clone_into(&mut spec.function.function))?;
    runtime.go()?;
    match runtime.next()? {
        Some(FromReplica::Failed(failure)) if !failure.message.is_empty() => runtime.ended(),
        said => Err(format!("it said {said:?}, not `failed` with a message")),
    }
}

fn spare(candidate: &Candidate) -> Kept {
    let runtime = candidate.start(false, |_| {})?;
    runtime.go()?;
    match runtime.next()? {
        Some(FromReplica::Warm { example_response }) => expect_example(example_response)?,
        said => return Err(format!("it said {said:?} after its byte, not `warm`")),
    }
    runtime.serve()?;
    runtime.expect_ready()?;
    runtime.connect()?.join(Role::Calls, "gateway")?.expect(r#"{"echo":1}"#, "1")
}

fn spare_leaves(candidate: &Candidate) -> Kept {
    let mut runtime = candidate.start(false, |_| {})?;
    runtime.go()?;
    match runtime.next()? {
        Some(FromReplica::Warm { .. }) => {}
        said => return Err(format!("it said {said:?} after its byte, not `warm`")),
    }
    runtime.tell(&line::encode(&ToSpare::Leave), &[])?;
    runtime.ended()
}

fn hello(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let hello = runtime.connect()?.hello()?;
        if hello.protocol.common(PROTOCOL).is_none() {
            return Err(format!("it speaks {:?}, gateways {PROTOCOL:?}", hello.protocol));
        }
        let is_true = hello.deployment == runtime.spec.deployment
            && hello.build == runtime.spec.build
            && hello.slot == SlotIndex(0)
            && hello.replica == ReplicaId::new(REPLICA);
        if !is_true {
            return Err(format!("it calls itself {hello:?}"));
        }
        nonces.push(hello.nonce);
    }
    if nonces[0] != nonces[1] {
        return Err("its nonce changes from connection to connection".to_owned());
    }
    let other = candidate.ready()?.connect()?.hello()?.nonce;
    if other == nonces[0] { Err("two processes have one nonce".to_owned()) } else { Ok(()) }
}

fn version(candidate: &Candidate) -> Kept {
    let runtime = candidate.ready()?;
    let mut peer = runtime.connect()?;
    peer.hello()?;
    let join =
        millgate_contract::frame::Join { version: 999, role: Role::Calls, gateway: "gateway".to_owned() };
    peer.send(&millgate_contract::frame::Frame::Join(join).encode())?;
    peer.expect_end()
}

fn orphan(candidate: &Candidate) -> Kept {
    let mut runtime = candidate.ready()?;
    runtime.connect()?.join(Role::Calls, "gateway")?.expect(r#"{"echo":1}"#, "1")?;
    runtime.abandon();
    runtime.ended()
}
