//! The TLS check, and HTTP over TLS.

use std::fs;
use std::net::SocketAddr;

use lvs::health::{CheckFailureKind, CheckReport, HttpCheck, TlsCheck, TlsSettings};
use rcgen::{CertificateParams, Issuer, KeyPair};
use sha2::{Digest, Sha256};

use crate::http::nginx;
use crate::world::{
    Folder, GARBAGE, LONG, Script, Server, assert_fails, free_address, refusing, run,
    run_out_of_time,
};

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key as PEM, and its digest.
struct Signed {
    certificate: String,
    key: String,
    sha256: [u8; 32],
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Makes a certificate for a name that is its own authority, as `openssl req -x509` does, valid until
    /// a year.
    fn self_signed(name: &str, until: i32) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        Signed {
            sha256: Sha256::digest(certificate.der()).into(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Signs a certificate for a name, valid until a year.
    fn sign(&self, name: &str, until: i32) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        // Not that of the authority, or OpenSSL takes the certificate for a self-signed one.
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            sha256: Sha256::digest(certificate.der()).into(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    fn trusted(&self) -> TlsSettings {
        TlsSettings::authorities(self.pem.as_bytes()).expect("its certificate")
    }
}

/// Starts nginx with a certificate; `None` if nginx is not installed.
async fn serve(address: SocketAddr, signed: &Signed) -> Option<(Server, Folder)> {
    serve_to(address, signed, "").await
}

/// Starts nginx, which asks for certificates that this authority has signed, unless it is empty.
async fn serve_to(address: SocketAddr, signed: &Signed, clients: &str) -> Option<(Server, Folder)> {
    let files = Folder::new();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", &signed.certificate), file("key.pem", &signed.key));
    let mut extra = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
    if !clients.is_empty() {
        let clients = file("clients.pem", clients);
        extra += &format!("ssl_verify_client on; ssl_client_certificate {clients};");
    }
    let (mut server, folder) = nginx(address, "ssl http2", &extra).await?;
    server.listens_at(address).await;
    drop(folder);
    Some((server, files))
}

#[tokio::test]
async fn a_certificate_must_be_valid_for_the_name_and_the_authority() {
    let (authority, another) = (Authority::new(), Authority::new());
    let (address, signed) = (free_address(), authority.sign("www.example.org", 2100));
    let Some(_server) = serve(address, &signed).await else { return };
    let named = authority.trusted().server_name("www.example.org").expect("a name");
    assert_eq!(run(&TlsCheck::new(named.clone()), address, LONG).await, Ok(CheckReport::up()));
    let fails = async |tls: TlsSettings, words: &str| {
        assert_fails(run(&TlsCheck::new(tls), address, LONG).await, CheckFailureKind::Tls, words);
    };
    fails(authority.trusted().server_name("example.net").expect("a name"), "example.net").await;
    fails(authority.trusted(), "not valid for name").await;
    let name = |tls: TlsSettings| tls.server_name("www.example.org").expect("a name");
    fails(name(another.trusted()), "TLS handshake: invalid peer certificate").await;
    if let Ok(system) = TlsSettings::system_roots() {
        fails(name(system), "UnknownIssuer").await;
    }
    let pinned = TlsSettings::pinned(signed.sha256);
    assert_eq!(run(&TlsCheck::new(pinned), address, LONG).await, Ok(CheckReport::up()));
    fails(TlsSettings::pinned([7; 32]), "TLS handshake").await;
    assert_eq!(
        run(&TlsCheck::new(TlsSettings::unverified()), address, LONG).await,
        Ok(CheckReport::up())
    );

    let page = HttpCheck::get("/health").expect("a path").tls(named);
    let page = page.body_matches("^ready$|^ready\n$").expect("a pattern");
    assert_eq!(run(&page, address, LONG).await, Ok(CheckReport::up()));
    #[cfg(feature = "health-http2")]
    assert_eq!(run(&page.http2(), address, LONG).await, Ok(CheckReport::up()));
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_by_itself() {
    for (until, is_valid) in [(2100, true), (2021, false)] {
        let address = free_address();
        let signed = Authority::self_signed("www.example.org", until);
        let Some(_server) = serve(address, &signed).await else { return };
        let trusted = || TlsSettings::authorities(signed.certificate.as_bytes()).expect("one");
        let answer = async |name: &str| {
            let tls = trusted().server_name(name).expect("a name");
            run(&TlsCheck::new(tls), address, LONG).await
        };
        let tls = answer("www.example.org").await;
        match is_valid {
            true => assert_eq!(tls, Ok(CheckReport::up())),
            false => assert_fails(tls, CheckFailureKind::Tls, "xpired"),
        }
        assert_fails(answer("example.net").await, CheckFailureKind::Tls, "TLS handshake");
        let another = Authority::self_signed("www.example.org", 2100);
        let another = TlsSettings::authorities(another.certificate.as_bytes()).expect("one");
        let another = another.server_name("www.example.org").expect("a name");
        let answer = run(&TlsCheck::new(another), address, LONG).await;
        assert_fails(answer, CheckFailureKind::Tls, "TLS handshake");
    }
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (address, signed) = (free_address(), authority.sign("www.example.org", 2100));
    let Some(_server) = serve_to(address, &signed, &clients.pem).await else { return };
    let page = |tls: TlsSettings| HttpCheck::get("/health").expect("a path").tls(tls);
    let unknown = run(&page(TlsSettings::unverified()), address, LONG).await;
    assert_fails(unknown, CheckFailureKind::Mismatch, "status 400");
    let (client, another) = (clients.sign("check", 2100), clients.sign("another", 2100));
    let (chain, key) = (client.certificate.as_bytes(), client.key.as_bytes());
    let tls = TlsSettings::unverified().client_certificate(chain, key).expect("its key");
    assert_eq!(run(&page(tls), address, LONG).await, Ok(CheckReport::up()));
    let error = TlsSettings::unverified().client_certificate(chain, another.key.as_bytes());
    let error = error.expect_err("the key of another certificate").to_string();
    assert!(error.starts_with("no valid private key of the client certificate"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_fails_or_gives_a_warning() {
    let authority = Authority::new();
    let (address, signed) = (free_address(), authority.sign("www.example.org", 2021));
    let Some(_server) = serve(address, &signed).await else { return };
    let tls = authority.trusted().server_name("www.example.org").expect("a name");
    assert_fails(run(&TlsCheck::new(tls), address, LONG).await, CheckFailureKind::Tls, "xpired");
    let report = run(&TlsCheck::new(TlsSettings::unverified()), address, LONG)
        .await
        .expect("a TLS handshake");
    assert_eq!(report.warning(), Some("the certificate has expired"));
    let page = HttpCheck::get("/health").expect("a path").tls(TlsSettings::unverified());
    let report = run(&page, address, LONG).await.expect("a response");
    assert_eq!(report.warning(), Some("the certificate has expired"));
}

#[tokio::test]
async fn a_server_without_tls_fails() {
    let check = TlsCheck::new(TlsSettings::unverified());
    assert_fails(run(&check, refusing(), LONG).await, CheckFailureKind::Refused, "connecting");
    let garbage = Script::new().never_ends(GARBAGE).await;
    assert_fails(run(&check, garbage.address, LONG).await, CheckFailureKind::Tls, "TLS handshake");
    assert!(garbage.bytes_sent() < 2 << 20, "{} bytes", garbage.bytes_sent());
    let closes = Script::new().closes().await;
    assert_fails(
        run(&check, closes.address, LONG).await,
        CheckFailureKind::Closed,
        "TLS handshake",
    );
    let resets = Script::new().resets().await;
    assert_fails(run(&check, resets.address, LONG).await, CheckFailureKind::Reset, "TLS handshake");
    let stage = "waiting for the TLS handshake";
    let stalls = Script::new().stalls().await;
    let failure = run_out_of_time(&check, stalls.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
    let trickles = Script::new().trickles([22, 3, 3, 64, 0, 2]).await;
    let failure = run_out_of_time(&check, trickles.address, stage).await;
    assert_fails(Err(failure), CheckFailureKind::Timeout, stage);
}
