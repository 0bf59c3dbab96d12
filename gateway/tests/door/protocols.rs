//! TLS and HTTP/2 at the door.

use std::sync::Arc;

use bytes::Bytes;
use davit_api::FunctionKind;
use davit_gateway::http::{Tls, TlsFiles};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::grpc_server;
use crate::support::until;
use crate::{door_with, public, serving};

/// A certificate for `fn.test` in two files.
struct Issued {
    folder: tempfile::TempDir,
}

impl Issued {
    fn new() -> Self {
        let issued = Self { folder: tempfile::tempdir().unwrap() };
        issued.renew();
        issued
    }
    fn files(&self) -> TlsFiles {
        TlsFiles { certificate: self.folder.path().join("cert.pem"), key: self.folder.path().join("key.pem") }
    }
    /// Writes a new certificate; what clients then have to trust.
    fn renew(&self) -> CertificateDer<'static> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["fn.test".to_owned()]).unwrap();
        std::fs::write(self.files().certificate, cert.pem()).unwrap();
        std::fs::write(self.files().key, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }
}

/// A client that trusts this certificate alone.
fn connector(trusted: CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn get_by_h2<S>(stream: S, uri: &str) -> (u16, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(uri).header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = send.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn http2_with_prior_knowledge_reaches_functions_as_http11() {
    let (door, _, _) = serving().await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (status, told) = get_by_h2(stream, "http://api.fn.test:80/shop/orders/a?b=c").await;
    assert_eq!(status, 200);
    assert!(told.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{told}");
    assert!(told.contains("host: api.fn.test:80\r\n") && told.contains("cookie: a=1; b=2\r\n"), "{told}");
}

#[tokio::test]
async fn grpc_calls_share_a_connection_and_keep_their_trailers() {
    let v = public(|s| (s.kind, s.concurrency, s.max_instances) = (FunctionKind::Server, 8, 1));
    let door = door_with(std::slice::from_ref(&v), |_| {}, None).await;
    door.world.container_with(&v, Some(grpc_server().await)).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let calls = (0..6).map(|n| {
        let mut send = send.clone();
        async move {
            let request = http::Request::post("http://fn.test/shop/orders/shop.Orders/Get");
            let request = request.header("content-type", "application/grpc").header("te", "trailers");
            let message = Full::new(Bytes::from(format!("message {n}")));
            let response = send.send_request(request.body(message).unwrap()).await.unwrap();
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().expect("they cross")["grpc-status"], "0");
            assert_eq!(body.to_bytes(), format!("/shop.Orders/Get HTTP/2.0: message {n}"));
        }
    });
    futures_util::future::join_all(calls).await;
    until("every slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
}

#[tokio::test]
async fn tls_offers_both_protocols_and_a_renewed_certificate_needs_no_restart() {
    let issued = Issued::new();
    let first = issued.renew();
    let tls = Tls::load(issued.files()).unwrap();
    let door = door_with(&[public(|_| {})], |_| {}, Some(tls.clone())).await;
    let name = || ServerName::try_from("fn.test").unwrap();
    let connect = async |trusted: &CertificateDer<'static>, alpn: &[&[u8]]| {
        let stream = TcpStream::connect(door.address).await.unwrap();
        connector(trusted.clone(), alpn).connect(name(), stream).await
    };
    for alpn in [&[&b"h2"[..]][..], &[b"http/1.1"]] {
        let stream = connect(&first, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn[0]));
    }
    let stream = connect(&first, &[b"h2"]).await.unwrap();
    assert_eq!(get_by_h2(stream, "https://fn.test/healthz").await, (200, "ok\n".to_owned()));

    let second = issued.renew();
    std::fs::write(issued.files().key, "nonsense").unwrap();
    tls.look_again();
    assert!(connect(&first, &[]).await.is_ok(), "what cannot be used changes nothing");
    let third = issued.renew();
    tls.look_again();
    assert!(connect(&third, &[]).await.is_ok());
    assert!(connect(&first, &[]).await.is_err() && connect(&second, &[]).await.is_err());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let issued = Issued::new();
    let other = Issued::new();
    std::fs::copy(other.files().key, issued.files().key).unwrap();
    for (damage, named) in [("other key", "key.pem"), ("no certificate", "cert.pem"), ("no file", "key.pem")]
    {
        match damage {
            "no certificate" => std::fs::write(issued.files().certificate, "").unwrap(),
            "no file" => {
                issued.renew();
                std::fs::remove_file(issued.files().key).unwrap();
            }
            _ => {}
        }
        let error = Tls::load(issued.files()).err().unwrap_or_else(|| panic!("{damage} was accepted"));
        assert!(error.to_string().contains(named), "{damage}: {error}");
    }
}
