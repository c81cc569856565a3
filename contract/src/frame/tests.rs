use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::{
    codec::{FLAG_OPTIONAL, Head},
    *,
};

fn hex(bytes: &[u8]) -> String {
    let rows: Vec<String> = bytes
        .chunks(16)
        .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
        .collect();
    rows.join("\n")
}

fn decode(bytes: &Bytes) -> Result<Option<Frame>, FrameError> {
    let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
    header.decode_payload(bytes.slice(HEADER_BYTES..))
}

fn one_of_each() -> Vec<(&'static str, Frame)> {
    vec![
        (
            "hello",
            Frame::Hello(Hello {
                protocol: PROTOCOL,
                deployment: DeploymentId::new("d"),
                build: BuildId::new("b"),
                slot: SlotIndex(3),
                replica: ReplicaId::new("add-1-1-86b9b58b7b-g6s8r"),
                nonce: 0x0102_0304_0506_0708,
            }),
        ),
        ("join", Frame::Join(Join { version: 1, role: Role::Control, gateway: "gw".into() })),
        (
            "call",
            Frame::Call(
                Call {
                    id: CallId(7),
                    remaining_ms: 30_000,
                    request_id: RequestId::new("r-1"),
                    traceparent: String::new(),
                    busy_poll_us: 100,
                },
                Bytes::from_static(br#"{"a":3,"b":5}"#),
            ),
        ),
        ("accepted", Frame::Accepted(CallId(7))),
        ("refused", Frame::Refused(CallId(7), RefusalReason::Draining)),
        (
            "done",
            Frame::Done(Done {
                id: CallId(7),
                outcome: Outcome::Ok,
                collects_metrics: true,
                is_leaving: false,
                is_queued: false,
                timings: Timings {
                    decode_us: 1,
                    run_us: 2,
                    encode_us: 3,
                    cpu_user_us: 4,
                    cpu_system_us: 5,
                    memory_peak_kib: 6,
                },
                value: Bytes::from_static(b"8"),
                metrics: Bytes::from_static(br#"{"n":1}"#),
            }),
        ),
        ("cancel", Frame::Cancel(CallId(7))),
        ("grant", Frame::Grant),
        ("decline", Frame::Decline),
        ("recall", Frame::Recall(CallId(7), CallId(9))),
    ]
}

#[test]
fn each_frame_has_its_bytes() {
    let shown: Vec<String> =
        one_of_each().iter().map(|(name, f)| format!("{name}\n{}", hex(&f.encode()))).collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

#[test]
fn each_frame_comes_back_as_it_was() {
    for (_, frame) in one_of_each() {
        assert_eq!(decode(&frame.encode()), Ok(Some(frame)));
    }
}

#[test]
fn fields_appended_to_a_head_by_a_newer_version_are_ignored() {
    let mut newer = BytesMut::from(&Frame::Cancel(CallId(7)).encode()[..]);
    newer[0] = 2;
    newer[6] = 2;
    newer.put_u16_le(99);
    assert_eq!(decode(&newer.freeze()), Ok(Some(Frame::Cancel(CallId(7)))));
}

#[test]
fn an_unknown_frame_is_skipped_only_when_it_is_optional() {
    let mut raw = [0; HEADER_BYTES];
    raw[4] = 200;
    assert_eq!(decode(&Bytes::copy_from_slice(&raw)), Err(FrameError::UnknownKind(200)));
    raw[5] = FLAG_OPTIONAL;
    assert_eq!(decode(&Bytes::copy_from_slice(&raw)), Ok(None));
}

#[test]
fn a_header_that_promises_too_much_is_refused_before_anything_is_read() {
    let mut raw = [0xff; HEADER_BYTES];
    assert_eq!(Header::decode(&raw), Err(FrameError::TooLarge(u32::MAX as usize)));
    raw[..4].copy_from_slice(&4_u32.to_le_bytes());
    assert_eq!(Header::decode(&raw), Err(FrameError::HeadOverrun { head_bytes: 0xffff, payload_bytes: 4 }));
}

#[test]
fn whoever_does_not_know_a_later_version_s_frames_may_skip_them() {
    let may_be_unknown = [Frame::Grant, Frame::Decline, Frame::Recall(CallId(7), CallId(9))];
    for frame in &may_be_unknown {
        assert_eq!(frame.encode()[5], FLAG_OPTIONAL);
    }
    for frame in one_of_each().into_iter().map(|(_, frame)| frame) {
        assert_eq!(frame.encode()[5] == FLAG_OPTIONAL, may_be_unknown.contains(&frame), "{frame:?}");
    }
}

#[test]
fn a_call_of_a_gateway_that_does_not_know_busy_polling_gives_no_leave_for_it() {
    let mut out = BytesMut::new();
    let mut head = Head::new(&mut out);
    head.bytes(&30_000_u32.to_le_bytes());
    head.bytes(b"\x03\0r-1\0\0");
    head.finish(3, CallId(7), 0);
    let Ok(Some(Frame::Call(call, _))) = decode(&out.freeze()) else { panic!("it is a call") };
    assert_eq!((call.request_id.as_str(), call.busy_poll_us), ("r-1", 0));
}

#[test]
fn each_fact_of_an_answer_comes_back_as_it_was() {
    for bits in 0..8_u8 {
        let done = Done {
            id: CallId(1),
            outcome: Outcome::Ok,
            collects_metrics: bits & 1 != 0,
            is_leaving: bits & 2 != 0,
            is_queued: bits & 4 != 0,
            timings: Timings::default(),
            value: Bytes::new(),
            metrics: Bytes::new(),
        };
        let frame = Frame::Done(done);
        assert_eq!(decode(&frame.encode()), Ok(Some(frame)));
    }
}

#[test]
fn a_call_that_is_written_already_can_be_numbered() {
    let Some((_, Frame::Call(call, body))) = one_of_each().into_iter().find(|(name, _)| *name == "call")
    else {
        panic!("there is one of each");
    };
    let mut frame =
        BytesMut::from(&Frame::Call(Call { id: CallId(0), ..call.clone() }, body.clone()).encode()[..]);
    number(&mut frame, call.id);
    assert_eq!(decode(&frame.freeze()), Ok(Some(Frame::Call(call, body))));
}

#[test]
fn versions_meet_at_the_newest_both_know() {
    let range = |min, max| ProtocolRange { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(1, 1).common(range(2, 2)), None);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(kind in 0_u8..14, head in proptest::collection::vec(any::<u8>(), 0..80), body in proptest::collection::vec(any::<u8>(), 0..40), cut in 0_usize..90) {
        let mut raw = BytesMut::new();
        let mut writing = Head::new(&mut raw);
        writing.bytes(&head);
        writing.finish(kind, CallId(1), body.len());
        raw.put_slice(&body);
        raw[6] = raw[6].min(u8::try_from(cut).unwrap_or(u8::MAX));
        let _ = decode(&raw.freeze());
    }
}
