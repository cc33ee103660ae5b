//! TLS: who is let in, who may do what, and certificates that change while calls run.

use crate::{
    house::{House, ask, follow, reason, spawn},
    probe::question,
};
use mesh::{
    Channel,
    client::{connect_secure, not_sent},
    tls::{Certificates, Files, refusal},
};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use testbed::certificates::{Authority, Signed};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version::TLS13,
    },
};
use tonic::{Code, Status};

/// No test waits for a file to be looked at.
const EVERY: Duration = Duration::from_millis(5);
/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// The files of a server or a client, in a directory that they are found in by a link, as where a secret is mounted.
struct Mounted {
    directory: TempDir,
    version: usize,
}

impl Mounted {
    fn new(ca: &str, signed: &Signed) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mounted = Self { directory, version: 0 };
        mounted.mount(ca, signed);
        mounted
    }

    /// All files at once, by one link that is replaced.
    fn mount(&mut self, ca: &str, Signed { cert, key }: &Signed) {
        let of = |name: &str| self.directory.path().join(name);
        let version = of(&format!("version-{}", self.version));
        fs::create_dir(&version).expect("it is new");
        for (name, pem) in [("ca.pem", ca), ("cert.pem", cert), ("key.pem", key)] {
            fs::write(version.join(name), pem).expect("it can be written");
        }
        symlink(&version, of("next")).expect("it is new");
        fs::rename(of("next"), of("now")).expect("they are in one directory");
        self.version += 1;
    }

    fn files(&self) -> Files {
        let file = |flag, name: &str| Some((flag, self.directory.path().join("now").join(name)));
        Files {
            ca: file("--tls-ca", "ca.pem"),
            cert: file("--tls-cert", "cert.pem"),
            key: file("--tls-key", "key.pem"),
        }
    }
}

fn authority() -> Authority {
    Authority::new().expect("a key can be made")
}

/// A server whose certificate and whose clients' are signed by the authority.
async fn house(authority: &Authority) -> House {
    let server = authority.sign("server").expect("a name");
    House::open_secure(Mounted::new(authority.pem(), &server).files(), SOON).await
}

/// As our own clients call, with a certificate of their own or without.
fn channel(house: &House, files: &Files) -> Channel {
    let client = Certificates::once(files).expect("they are well-formed").client();
    let url = format!("https://{}", house.serving.address);
    connect_secure(&url, "--url", client.as_ref()).expect("it is a URL")
}

fn of(authority: &Authority, name: &str) -> Mounted {
    Mounted::new(authority.pem(), &authority.sign(name).expect("a name"))
}

/// Whether a client is let in who believes this authority and shows that, or nothing: whether it hears a first word.
async fn knock(address: SocketAddr, ca: &str, shows: Option<&Signed>) -> io::Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("ring knows it")
        .with_root_certificates(roots);
    let config = match shows {
        Some(Signed { cert, key }) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
        ),
        None => Ok(config.with_no_client_auth()),
    };
    let connector = TlsConnector::from(Arc::new(config.expect("the key fits")));
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await?;
    if stream.fill_buf().await?.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Nothing of a call was sent, and its caller is told why.
fn unsent(refused: &Status, why: &str) {
    assert_eq!((refused.code(), not_sent(refused)), (Code::Unavailable, true), "{refused:?}");
    let told = refusal(refused).unwrap_or_else(|| panic!("it is no refusal: {refused:?}"));
    assert!(told.starts_with(why), "{told}");
}

#[tokio::test]
async fn who_may_call_is_told_by_the_certificate() {
    let authority = authority();
    let house = house(&authority).await;
    let till = channel(&house, &of(&authority, "till").files());
    assert_eq!(ask(&till, question("hello")).await.expect("it may").text, "hello");

    let id = authority.sign_spiffe("spiffe://shop.test/ns/shop/sa/till").expect("an id");
    let workload = channel(&house, &Mounted::new(authority.pem(), &id).files());
    assert!(ask(&workload, question("hello")).await.is_ok());
    assert_eq!(house.probe.asked().len(), 2);

    let cook = channel(&house, &of(&authority, "cook").files());
    let refused = ask(&cook, question("hello")).await.expect_err("it may not");
    assert_eq!(reason(&refused), (Code::PermissionDenied, "FORBIDDEN".to_owned()));
    assert!(refused.message().contains("cook"), "{refused}");
    assert_eq!(house.probe.asked().len(), 2, "nothing happened");
    let mut told = follow(&cook, question("")).await.expect("that is for all");
    assert!(matches!(told.message().await, Ok(Some(_))));
    drop((till, workload, cook, told));
    house.close().await;
}

#[tokio::test]
async fn nobody_is_let_in_without_a_certificate_that_is_believed_and_valid() {
    let (ours, other) = (authority(), authority());
    let house = house(&ours).await;
    let address = house.serving.address;
    let till = ours.sign("till").expect("a name");
    knock(address, ours.pem(), Some(&till)).await.expect("it is one of ours");
    let stranger = other.sign("till").expect("a name");
    let expired = ours.sign_expired("till").expect("a name");
    for (shows, told) in [
        (None, "CertificateRequired"),
        (Some(&stranger), "UnknownCA"),
        (Some(&expired), "CertificateExpired"),
    ] {
        let refused = knock(address, ours.pem(), shows).await.expect_err("it is not let in");
        assert!(refused.to_string().contains(told), "{told}: {refused}");
    }
    // our own clients know that nothing of a call was sent
    let believing = of(&ours, "till");
    let nothing = Files { cert: None, key: None, ..believing.files() };
    let both = Mounted::new(ours.pem(), &stranger);
    for files in [nothing, both.files()] {
        let channel = channel(&house, &files);
        let refused = ask(&channel, question("hello")).await.expect_err("it is not let in");
        unsent(&refused, "it does not let this client in");
    }
    assert_eq!(house.probe.asked(), []);
    house.close().await;
}

#[tokio::test]
async fn a_server_is_believed_only_with_the_right_authority_and_name() {
    let (ours, other) = (authority(), authority());
    let house = house(&ours).await;
    let wrong =
        channel(&house, &Mounted::new(other.pem(), &ours.sign("till").expect("a name")).files());
    let refused = ask(&wrong, question("hello")).await.expect_err("it is not believed");
    unsent(&refused, "its certificate is not believed");

    // a workload's certificate is for no host: not for the one in the URL
    let id = ours.sign_spiffe("spiffe://shop.test/server").expect("an id");
    let nameless = House::open_secure(Mounted::new(ours.pem(), &id).files(), SOON).await;
    let channel = channel(&nameless, &of(&ours, "till").files());
    let refused = ask(&channel, question("hello")).await.expect_err("it is another one");
    unsent(&refused, "its certificate is not believed");
    assert_eq!((house.probe.asked(), nameless.probe.asked()), (vec![], vec![]));
    house.close().await;
    nameless.close().await;
}

#[tokio::test]
async fn one_who_speaks_plaintext_to_tls_is_sent_away_at_once() {
    let house = house(&authority()).await;
    for hello in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(house.serving.address).await.expect("it listens");
        stream.write_all(hello.as_bytes()).await.expect("it is there");
        let mut heard = Vec::new();
        // before the handshake's time is over, which is 5 s
        let closed = timeout(Duration::from_secs(4), stream.read_to_end(&mut heard)).await;
        assert!(closed.is_ok(), "{hello:?}");
        assert!(heard.len() < 16, "an alert of TLS at most: {heard:?}");
    }
    // and the other way round: nothing is sent to a server that does not speak TLS
    let plain = House::open().await;
    let channel = channel(&plain, &of(&authority(), "till").files());
    let refused = ask(&channel, question("hello")).await.expect_err("it speaks plaintext");
    unsent(&refused, "it does not speak TLS");
    house.close().await;
    plain.close().await;
}

#[tokio::test(start_paused = true)]
async fn one_who_never_says_hello_is_given_up() {
    let house = house(&authority()).await;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(house.serving.address).await.expect("it listens");
    let ended = stream.read(&mut [0; 8]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn certificates_change_without_a_lost_call() {
    let (old, new) = (authority(), authority());
    let mut mounted = Mounted::new(old.pem(), &old.sign("server").expect("a name"));
    let house = House::open_secure(mounted.files(), EVERY).await;
    let (address, till) = (house.serving.address, old.sign("till").expect("a name"));
    // it believes the old authority alone: it could not connect again
    let channel = channel(&house, &Mounted::new(old.pem(), &till).files());
    let waiting = spawn({
        let channel = channel.clone();
        async move { ask(&channel, question("wait")).await }
    });
    house.probe.waits(1).await;
    let ended = Arc::new(AtomicBool::new(false));
    let calls = spawn({
        let (channel, ended) = (channel.clone(), ended.clone());
        async move {
            let mut answered = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                ask(&channel, question("hello")).await?;
                answered += 1;
            }
            Ok::<_, Status>(answered)
        }
    });

    knock(address, new.pem(), Some(&till)).await.expect_err("it shows the old one");
    let both = format!("{}{}", old.pem(), new.pem());
    mounted.mount(&both, &new.sign("server").expect("a name"));
    let changed = async { while knock(address, new.pem(), Some(&till)).await.is_err() {} };
    timeout(SOON, changed).await.expect("new connections see the new one");
    let newcomer = new.sign("till").expect("a name");
    knock(address, new.pem(), Some(&newcomer)).await.expect("the new authority is believed");

    house.probe.release();
    let waited = waiting.await.expect("no panic").expect("it was not cut off");
    assert_eq!(waited.text, "wait");
    assert!(ask(&channel, question("hello")).await.is_ok(), "the old connection goes on");
    ended.store(true, Ordering::Relaxed);
    let answered = calls.await.expect("no panic").expect("no call is lost");
    assert!(answered > 0);
    house.close().await;
}

#[tokio::test]
async fn health_is_told_in_plaintext_to_those_who_run_it() {
    let house = house(&authority()).await;
    let url = format!("http://{}", house.serving.admin_address);
    let endpoint = tonic::transport::Endpoint::from_shared(url).expect("it is a URL");
    let channel = endpoint.connect().await.expect("it listens");
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = tonic_health::pb::HealthCheckRequest { service: "liveness".to_owned() };
    assert!(client.check(asked).await.is_ok());
    drop(client);
    house.close().await;
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_flag() {
    let (ours, other) = (authority(), authority());
    let till = ours.sign("till").expect("a name");
    let mounted = Mounted::new(ours.pem(), &till);
    let now = mounted.directory.path().join("now");
    let refused = |name: &str, pem: &str, told: &[&str]| {
        let path = now.join(name);
        let good = fs::read(&path).expect("it is there");
        fs::write(&path, pem).expect("it can be written");
        let error = Certificates::once(&mounted.files()).expect_err("it is wrong");
        let error = format!("{error:#}");
        for told in told.iter().chain([&&*path.to_string_lossy()]) {
            assert!(error.contains(told) && !error.contains('\n'), "{told}: {error}");
        }
        fs::write(&path, good).expect("it can be written");
    };
    let half = till.cert[..till.cert.len() / 2].to_owned();
    let expired = ours.sign_expired("till").expect("a name");
    let another = other.sign("till").expect("a name");
    refused("ca.pem", "", &["--tls-ca", "no certificate"]);
    refused("ca.pem", &half, &["--tls-ca", "malformed"]);
    refused("cert.pem", "certainly not", &["--tls-cert", "no certificate"]);
    refused("cert.pem", &half, &["--tls-cert", "malformed"]);
    refused("cert.pem", &another.cert, &["--tls-cert", "is not that of"]);
    refused("key.pem", &till.cert, &["--tls-key", "no key"]);
    refused("key.pem", &another.key, &["--tls-key", "is not that of"]);
    fs::write(now.join("key.pem"), &expired.key).expect("it can be written");
    refused("cert.pem", &expired.cert, &["--tls-cert", "has expired"]);
    fs::write(now.join("key.pem"), &till.key).expect("it can be written");
    assert!(Certificates::once(&mounted.files()).is_ok());

    let error =
        |files: Files| format!("{:#}", Certificates::once(&files).expect_err("it is wrong"));
    let missing =
        Files { ca: Some(("--tls-ca", Path::new("/no/such/ca").into())), ..mounted.files() };
    assert!(error(missing).contains("cannot read /no/such/ca (--tls-ca): "));
    let keyless = error(Files { key: None, ..mounted.files() });
    assert!(keyless.contains("--tls-cert") && keyless.contains("needs its key"), "{keyless}");
}
