//! The bytes around an answer. The `response` JSON is copied as it came from the replica, never parsed.

use std::io::Write as _;

use crate::{ids::ReplicaId, refusal::Refusal};

/// Who made a prediction, for functions that collect metrics.
#[derive(Debug, Clone, Copy)]
pub struct Prediction<'a> {
    /// CRN of the deployment.
    pub deployment_crn: &'a str,
    /// UUID (version 4) of the prediction.
    pub uuid: &'a str,
}

/// `{"success":true,"response":…,"ReplicaID":"…","Size":…,"StatusCode":200}`.
///
/// With `prediction`, `response` is `{"model_deployment_crn","prediction","uuid"}` around the value.
/// `Size` is the bytes of the `response` JSON.
pub fn success(value_json: &[u8], replica: &ReplicaId, prediction: Option<Prediction<'_>>) -> Vec<u8> {
    let names_bytes =
        replica.as_str().len() + prediction.map_or(0, |p| p.deployment_crn.len() + p.uuid.len());
    let mut out = Vec::with_capacity(value_json.len() + names_bytes + 256);
    out.extend_from_slice(br#"{"success":true,"response":"#);
    let begin = out.len();
    match prediction {
        None => out.extend_from_slice(value_json),
        Some(p) => {
            out.extend_from_slice(br#"{"model_deployment_crn":"#);
            push_json_string(&mut out, p.deployment_crn);
            out.extend_from_slice(br#","prediction":"#);
            out.extend_from_slice(value_json);
            out.extend_from_slice(br#","uuid":"#);
            push_json_string(&mut out, p.uuid);
            out.push(b'}');
        }
    }
    let size = out.len() - begin;
    out.extend_from_slice(br#","ReplicaID":"#);
    push_json_string(&mut out, replica.as_str());
    write!(out, r#","Size":{size},"StatusCode":200}}"#).expect("memory takes what is written");
    out
}

/// `{"success":false,"error":{"code","message"},"errors":[message],"ReplicaID"?,"StatusCode"}`.
pub fn failure(refusal: &Refusal, replica: Option<&ReplicaId>) -> Vec<u8> {
    let message = refusal.message();
    let mut out = Vec::with_capacity(message.len() * 2 + 160);
    out.extend_from_slice(br#"{"success":false,"error":{"code":"#);
    push_json_string(&mut out, refusal.code());
    out.extend_from_slice(br#","message":"#);
    push_json_string(&mut out, &message);
    out.extend_from_slice(br#"},"errors":["#);
    push_json_string(&mut out, &message);
    out.push(b']');
    if let Some(replica) = replica {
        out.extend_from_slice(br#","ReplicaID":"#);
        push_json_string(&mut out, replica.as_str());
    }
    write!(out, r#","StatusCode":{}}}"#, refusal.status()).expect("memory takes what is written");
    out
}

fn push_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text always serializes into memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn replica() -> ReplicaId {
        ReplicaId::new("add-two-numbers-1-1-86b9b58b7b-g6s8r")
    }

    #[test]
    fn success_carries_the_value_as_it_came() {
        insta::assert_snapshot!(text(success(b"8", &replica(), None)), @r#"{"success":true,"response":8,"ReplicaID":"add-two-numbers-1-1-86b9b58b7b-g6s8r","Size":1,"StatusCode":200}"#);
    }

    #[test]
    fn a_prediction_is_wrapped_with_its_crn_and_uuid() {
        let prediction = Prediction { deployment_crn: "crn:cdp:ml:x", uuid: "0b6d" };
        insta::assert_snapshot!(text(success(b"[1.5]", &replica(), Some(prediction))), @r#"{"success":true,"response":{"model_deployment_crn":"crn:cdp:ml:x","prediction":[1.5],"uuid":"0b6d"},"ReplicaID":"add-two-numbers-1-1-86b9b58b7b-g6s8r","Size":72,"StatusCode":200}"#);
    }

    #[test]
    fn every_refusal_has_its_status_code_and_words() {
        let table: Vec<String> = Refusal::all()
            .iter()
            .map(|r| {
                let retry = r.retry_after_s().map_or(String::new(), |s| format!(" Retry-After: {s}"));
                format!("{}{retry} {}", r.status(), text(failure(r, None)))
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_failure_names_the_replica_that_ran_the_call() {
        let body = text(failure(&Refusal::ReplicaCrashed, Some(&replica())));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["ReplicaID"], replica().as_str());
        assert_eq!(value["StatusCode"], 502);
    }
}
