//! JSON lines and datagrams: how the rarely spoken messages between processes are written. One message is one JSON
//! value; on a stream it ends with a line feed. A reader bounds what it buffers by the channel's limit.

use serde::{Serialize, de::DeserializeOwned};

/// A message that is not what its channel carries.
#[derive(Debug, thiserror::Error)]
#[error("not a message of this channel: {source}")]
pub struct MessageError {
    #[from]
    source: serde_json::Error,
}

/// The message and its line feed.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages hold nothing that JSON cannot");
    line.push(b'\n');
    line
}

/// The message in `line`, with or without its line feed. Unknown fields are ignored.
pub fn decode<M: DeserializeOwned>(line: &[u8]) -> Result<M, MessageError> {
    Ok(serde_json::from_slice(line)?)
}
