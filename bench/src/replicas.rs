//! Replicas that answer every call with `8` at once: what is left is the gateway.

use std::{io, path::Path};

use bytes::BytesMut;
use millgate_contract::{
    frame::{Done, Frame, HEADER_BYTES, Header, Hello, Outcome, PROTOCOL, Timings},
    ids::{ReplicaId, SlotIndex},
    route::DeploymentRoute,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::issuer;

/// Listens for the `number`th model of [`issuer::Issuer::snapshot`]. Its task ends with the runtime.
pub fn serve(number: usize, runs: &Path) -> io::Result<()> {
    let route = issuer::deployment(number, runs);
    std::fs::create_dir_all(&route.run_dir)?;
    let listener = UnixListener::bind(route.run_dir.join("s0.sock"))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // An error is the gateway's end.
            let answering = answer(stream, hello(&route));
            tokio::spawn(async move { drop(answering.await) });
        }
    });
    Ok(())
}

fn hello(route: &DeploymentRoute) -> Hello {
    Hello {
        protocol: PROTOCOL,
        deployment: route.deployment.clone(),
        build: route.build.clone(),
        slot: SlotIndex(0),
        replica: ReplicaId::new(format!("{}-r", route.deployment)),
        nonce: 1,
    }
}

async fn answer(mut stream: UnixStream, hello: Hello) -> io::Result<()> {
    stream.write_all(&Frame::Hello(hello).encode()).await?;
    let mut received = BytesMut::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        while let Some(header) = received.first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(header).map_err(io::Error::other)?;
            if received.len() < HEADER_BYTES + header.payload_bytes {
                break;
            }
            let payload = received.split_to(HEADER_BYTES + header.payload_bytes).freeze();
            let frame = header.decode_payload(payload.slice(HEADER_BYTES..)).map_err(io::Error::other)?;
            if let Some(Frame::Call(call, _)) = frame {
                stream.write_all(&Frame::Accepted(call.id).encode()).await?;
                let done = Done {
                    id: call.id,
                    outcome: Outcome::Ok,
                    collects_metrics: false,
                    is_leaving: false,
                    is_queued: false,
                    timings: Timings::default(),
                    value: bytes::Bytes::from_static(b"8"),
                    metrics: bytes::Bytes::new(),
                };
                stream.write_all(&Frame::Done(done).encode()).await?;
            }
        }
    }
}
