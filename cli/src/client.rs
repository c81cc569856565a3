//! The commands' way to the server: API v2 over HTTP, nothing else. Errors of the API become messages as they are.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use ureq::{
    Agent, Body, SendBody, http,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{
    args::Global,
    env_vars,
    failure::{Context, Failure},
    settings::default_data_dir,
};

/// Bytes of an answer that is not a stream.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The largest page the API gives.
const PAGE_SIZE: u32 = 100_000;

/// A server and the key for it.
pub(crate) struct Client {
    agent: Agent,
    server: String,
    key: Credential,
}

/// An API key and where it came from, so that a printed command can name the place instead of the key.
pub(crate) struct Credential {
    text: String,
    source: CredentialSource,
}

enum CredentialSource {
    File(PathBuf),
    Variable,
}

/// An answer of the model endpoint: any status, its envelope.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    /// Reads the key: `--key-file`, `MILLGATE_API_KEY`, or the server's own `credentials.json`.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let server = global.server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(Failure::usage(format!("`{server}` is not the address of a server"))
                .hint("give it as in `http://127.0.0.1:8080`"));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .tls_config(tls(global, &server)?)
            .build()
            .into();
        Ok(Self { agent, server, key: Credential::find(global)? })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The key as a shell would read it from where we did, in double quotes.
    pub(crate) fn key_in_shell(&self) -> String {
        match &self.key.source {
            CredentialSource::Variable => format!("${}", env_vars::API_KEY),
            CredentialSource::File(path) => {
                format!(r#"$(sed -E 's/.*"api_key": *"([^"]+)".*/\1/' '{}' | tail -n 1)"#, path.display())
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json("POST", path, Some(body.to_string().into_bytes()))
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json("PATCH", path, Some(body.to_string().into_bytes()))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json("PUT", path, Some(body.to_string().into_bytes()))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.json("DELETE", path, None)
    }

    /// Sends `tar` as the whole source of a project.
    pub(crate) fn put_source(&self, path: &str, tar: impl Read + Send + 'static) -> Result<Value, Failure> {
        let request = self.request("PUT", path, "application/x-tar");
        self.answered(path, request.body(SendBody::from_owned_reader(tar)).map(|r| self.agent.run(r)))
            .and_then(Self::answer_of_api)
    }

    /// Every item of a list, named `field`, with an optional filter.
    pub(crate) fn list(
        &self,
        path: &str,
        field: &str,
        filter: Option<&Value>,
    ) -> Result<Vec<Value>, Failure> {
        let filter =
            filter.map_or(String::new(), |f| format!("&search_filter={}", percent_encode(&f.to_string())));
        let sign = if path.contains('?') { '&' } else { '?' };
        let answer = self.get(&format!("{path}{sign}page_size={PAGE_SIZE}{filter}"))?;
        Ok(answer[field].as_array().cloned().unwrap_or_default())
    }

    /// The data of each server-sent event, as it comes, until the server ends the stream or `each` says so.
    pub(crate) fn events(&self, path: &str, mut each: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        let response = self.send("GET", path, "application/json", Vec::new())?;
        if response.status() != 200 {
            Self::answer_of_api(response)?;
            return Ok(());
        }
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the server's stream broke off")?;
            if let Some(data) = line.strip_prefix("data:")
                && !each(data.trim_start())
            {
                break;
            }
        }
        Ok(())
    }

    /// Whose key this is.
    pub(crate) fn key_owner(&self) -> Result<String, Failure> {
        let answer = self.post("/api/v2/auth/validate_key", &serde_json::json!({"audience": "API"}))?;
        match answer["username"].as_str() {
            Some(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(Failure::new("the API key is not valid")
                .hint("create a new one with another key, or ask an administrator")),
        }
    }

    /// One call of a model.
    pub(crate) fn call(&self, access_key: &str, request: &Value) -> Result<Answer, Failure> {
        let body = serde_json::json!({"accessKey": access_key, "request": request}).to_string();
        let response = self.send("POST", "/model", "application/json", body.into_bytes())?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: text_of(response)? })
    }

    fn json(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Value, Failure> {
        Self::answer_of_api(self.send(method, path, "application/json", body.unwrap_or_default())?)
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<http::Response<Body>, Failure> {
        let request = self.request(method, path, kind);
        self.answered(
            path,
            if body.is_empty() && method != "POST" && method != "PUT" {
                request.body(()).map(|r| self.agent.run(r))
            } else {
                request.body(body).map(|r| self.agent.run(r))
            },
        )
    }

    fn request(&self, method: &str, path: &str, kind: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header("authorization", format!("Bearer {}", self.key.text))
            .header("content-type", kind)
    }

    fn answered(
        &self,
        path: &str,
        sent: http::Result<Result<http::Response<Body>, ureq::Error>>,
    ) -> Result<http::Response<Body>, Failure> {
        sent.context(format_args!("`{}{path}` cannot be asked for", self.server))?.map_err(|cause| {
            Failure::new(format!("cannot reach the server at `{}`: {cause}", self.server))
                .hint("start one with `millgate serve`, or name another with `--server URL`")
        })
    }

    fn answer_of_api(response: http::Response<Body>) -> Result<Value, Failure> {
        let status = response.status();
        let text = text_of(response)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        let said = value["message"].as_str().map_or_else(|| text.trim().to_owned(), str::to_owned);
        let failure = Failure::new(format!("the server answers {}: {said}", status.as_u16()));
        Err(match status.as_u16() {
            401 => {
                failure.hint(format!("give a valid API key by `--key-file FILE` or `{}`", env_vars::API_KEY))
            }
            _ => failure,
        })
    }
}

/// Whom to trust: the authorities of a file, else the system's. They are read only where they are needed.
fn tls(global: &Global, server: &str) -> Result<TlsConfig, Failure> {
    if !server.starts_with("https://") {
        return Ok(TlsConfig::default());
    }
    let found = millgate_gateway::authorities(global.ca_file.as_deref()).map_err(|error| {
        Failure::new(format!("there is no authority to trust a server by: {error}")).hint(format!(
            "give a file of certificates in PEM by `--ca-file FILE` or `{}`",
            env_vars::CA_FILE
        ))
    })?;
    let roots: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build())
}

impl Credential {
    fn find(global: &Global) -> Result<Self, Failure> {
        if global.key_file.is_none()
            && let Ok(text) = std::env::var(env_vars::API_KEY)
        {
            return Ok(Self { text, source: CredentialSource::Variable });
        }
        let path = global.key_file.clone().unwrap_or_else(|| {
            std::env::var_os(env_vars::DATA_DIR)
                .map_or_else(default_data_dir, PathBuf::from)
                .join("credentials.json")
        });
        let text = std::fs::read_to_string(&path).map_err(|cause| {
            Failure::new(format!("cannot read an API key from `{}`: {cause}", path.display())).hint(format!(
                "start the server once with `millgate serve`, or give a key by `--key-file FILE` or `{}`",
                env_vars::API_KEY
            ))
        })?;
        let key = match serde_json::from_str::<Value>(&text) {
            Ok(value) => value["api_key"].as_str().map(str::to_owned),
            Err(_) => Some(text.trim().to_owned()),
        };
        let text = key.filter(|k| !k.is_empty() && !k.contains(char::is_whitespace)).ok_or_else(|| {
            Failure::new(format!("`{}` holds no API key", path.display()))
                .hint("it should be the key alone, or JSON with an `api_key`")
        })?;
        Ok(Self { text, source: CredentialSource::File(path) })
    }
}

fn text_of(response: http::Response<Body>) -> Result<String, Failure> {
    let mut text = String::new();
    response
        .into_body()
        .into_reader()
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut text)
        .context("the server's answer broke off")?;
    Ok(text)
}

/// Everything but unreserved characters (RFC 3986) as `%XX`.
pub(crate) fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(key_file: PathBuf) -> Global {
        Global { json: false, server: "http://127.0.0.1:1".into(), key_file: Some(key_file), ca_file: None }
    }

    #[test]
    fn a_key_file_is_json_or_the_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        for text in ["mgk_x\n", r#"{"username": "admin", "api_key": "mgk_x"}"#] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Credential::find(&global(file.clone())).unwrap().text, "mgk_x");
        }
        std::fs::write(&file, "two words").unwrap();
        assert!(Credential::find(&global(file)).is_err());
    }

    #[test]
    fn what_a_query_cannot_hold_is_encoded() {
        assert_eq!(percent_encode(r#"{"name":"a b&c"}"#), "%7B%22name%22%3A%22a%20b%26c%22%7D");
    }
}
