//! What hyper makes of a thin gateway, untuned: one server with a fixed answer, and in front of it one that passes on.
//!
//! `hyper_proxy FRONT BACK`, both `address:port`.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, Uri, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

const ANSWER: &[u8] =
    br#"{"success":true,"response":8,"ReplicaID":"add-1-1-86b9b58b7b-g6s8r","Size":1,"StatusCode":200}"#;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let addresses: Vec<SocketAddr> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [front, back] = addresses[..] else { return Err("usage: hyper_proxy FRONT BACK".into()) };
    tokio::spawn(serve(TcpListener::bind(back).await?, |request| async move {
        request.into_body().collect().await?;
        Ok(Response::new(Full::new(Bytes::from_static(ANSWER))))
    }));
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let target: Uri = format!("http://{back}/").parse()?;
    serve(TcpListener::bind(front).await?, move |request| {
        let (client, target) = (client.clone(), target.clone());
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let onward = Request::post(target).body(Full::new(body))?;
            let (head, body) = client.request(onward).await?.into_parts();
            Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
        }
    })
    .await;
    Ok(())
}

async fn serve<S, F>(listener: TcpListener, answer: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, BoxError>> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        let each = service_fn(move |request| {
            let answering = answer(request);
            async move {
                let failed =
                    |_| Response::builder().status(502).body(Full::default()).expect("it has no headers");
                Ok::<_, Infallible>(answering.await.unwrap_or_else(failed))
            }
        });
        // An error is the caller's end.
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), each).await);
        });
    }
}
