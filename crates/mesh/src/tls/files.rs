//! The files that TLS is made of: read at the start, and again when they change.

use super::{Client, H2, Server};
use anyhow::{Context as _, bail, ensure};
use chassis::Host;
use std::{
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_rustls::rustls::{
    self,
    CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext},
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, verify_server_cert_signed_by_trust_anchor},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio_util::sync::CancellationToken;

/// A bundle of a hundred authorities is smaller; a larger file is something else.
const LARGEST_FILE: u64 = 1024 * 1024;
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// What is in force.
pub(super) type Held = watch::Receiver<Arc<Configs>>;

/// PEM files, each with the flag that sets it.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The authorities: whose signature on a certificate is believed. With them a server lets in nobody without one.
    pub ca: Option<(&'static str, PathBuf)>,
    /// The own certificate, and after it those between it and its authority. It comes with its key.
    pub cert: Option<(&'static str, PathBuf)>,
    /// The key of the own certificate.
    pub key: Option<(&'static str, PathBuf)>,
}

/// The certificates of a process. A clone is the same.
#[derive(Clone)]
pub struct Certificates(Held);

/// What connections are made with. Each side is there if the files are that it needs.
pub(super) struct Configs {
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(super) client: Option<Arc<ClientConfig>>,
    /// Whether the server asks its clients for certificates.
    pub(super) knows_peers: bool,
}

/// What was in the files, in the order of their names in [`Files`].
#[derive(Clone, PartialEq, Eq)]
struct Contents([Option<Vec<u8>>; 3]);

impl Certificates {
    /// Reads the files, and looks `every` so often whether they have changed, until the host drains. What is in the files
    /// counts, not when it was written: a mounted secret changes by a link that is set anew.
    ///
    /// # Errors
    /// What is wrong with which file, with its flag.
    pub fn open(host: &Host, files: Files, every: Duration) -> anyhow::Result<Self> {
        let (seen, configs) = read(&files)?;
        let (sender, held) = watch::channel(Arc::new(configs));
        let reader = Reader { files, seen, refused: None, sender };
        host.spawn("the certificates", reader.work(every, host.draining()));
        Ok(Self(held))
    }

    /// Reads the files once: for a process that does not live long.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn once(files: &Files) -> anyhow::Result<Self> {
        let (_contents, configs) = read(files)?;
        Ok(Self(watch::Sender::new(Arc::new(configs)).subscribe()))
    }

    /// For listeners, if there is a certificate to show.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        self.0.borrow().server.is_some().then(|| Server(self.0.clone()))
    }

    /// For calls, if there are authorities to believe.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.0.borrow().client.is_some().then(|| Client(self.0.clone()))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Reads the files again and again.
struct Reader {
    files: Files,
    /// What is in force.
    seen: Contents,
    /// Why what was read last is not. Nothing is said twice.
    refused: Option<String>,
    sender: watch::Sender<Arc<Configs>>,
}

impl Reader {
    async fn work(mut self, every: Duration, draining: CancellationToken) -> anyhow::Result<()> {
        // the first look was the start's
        let mut look = interval_at(Instant::now() + every, every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                _ = look.tick() => {}
            }
            let files = self.files.clone();
            // a volume that is gone may keep a read waiting; no call waits with it
            let read = tokio::select! {
                () = draining.cancelled() => return Ok(()),
                read = spawn_blocking(move || contents(&files)) => read?,
            };
            self.look(read, UnixTime::now());
        }
    }

    /// What is refused is judged again each time: it may only have come too early.
    fn look(&mut self, read: anyhow::Result<Contents>, now: UnixTime) {
        let made = read.and_then(|contents| {
            let new = contents != self.seen;
            let configs = new.then(|| configs(&self.files, &contents, now)).transpose()?;
            Ok(configs.map(|configs| (contents, configs)))
        });
        let refused = made.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(why) = &refused
            && self.refused != refused
        {
            tracing::warn!("new certificates are refused, the old ones stay: {why}");
        }
        self.refused = refused;
        if let Ok(Some((contents, configs))) = made {
            tracing::info!("the certificates have changed: new connections use the new ones");
            self.sender.send_replace(Arc::new(configs));
            self.seen = contents;
        }
    }
}

fn read(files: &Files) -> anyhow::Result<(Contents, Configs)> {
    let contents = contents(files)?;
    let configs = configs(files, &contents, UnixTime::now())?;
    Ok((contents, configs))
}

fn contents(files: &Files) -> anyhow::Result<Contents> {
    let load = |file: &Option<(&'static str, PathBuf)>| {
        let Some((flag, path)) = file else { return Ok(None) };
        let loaded = load(path);
        loaded.map(Some).with_context(|| format!("cannot read {} ({flag})", path.display()))
    };
    Ok(Contents([load(&files.ca)?, load(&files.cert)?, load(&files.key)?]))
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= LARGEST_FILE) {
        Ok(bytes)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"))
    }
}

/// A process's own certificate, with its key.
type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn configs(files: &Files, Contents(contents): &Contents, now: UnixTime) -> anyhow::Result<Configs> {
    let named = |file: &Option<(&'static str, PathBuf)>| {
        file.as_ref()
            .map_or_else(String::new, |(flag, path)| format!("{} ({flag})", path.display()))
    };
    let (ca, cert, key) = (named(&files.ca), named(&files.cert), named(&files.key));
    // ring, as all else that speaks TLS in this process; it is handed over, for a process has no default of its own
    let provider = Arc::new(ring::default_provider());
    let [authorities, chain, secret] = contents.each_ref().map(Option::as_deref);
    let roots = authorities.map(|pem| roots(pem, &ca)).transpose()?.map(Arc::new);
    let own = match (chain, secret) {
        (None, None) => None,
        (Some(chain), Some(secret)) => {
            let own = (certificates(chain, &cert)?, private_key(secret, &key)?);
            fits(&own, &provider, &cert, &key)?;
            valid(&own.0, now, &provider, &cert)?;
            Some(own)
        }
        (Some(_), None) => bail!("the certificate {cert} needs its key"),
        (None, Some(_)) => bail!("the key {key} needs its certificate"),
    };
    let server = own.as_ref().map(|own| server(own, roots.clone(), &provider)).transpose()?;
    let knows_peers = roots.is_some();
    let client = roots.map(|roots| client(own, roots, &provider)).transpose()?;
    Ok(Configs { server: server.map(Arc::new), client: client.map(Arc::new), knows_peers })
}

fn server(
    (chain, key): &Own,
    roots: Option<Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<ServerConfig> {
    let config =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(VERSIONS)?;
    let config = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            config.with_client_cert_verifier(verifier.build()?)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain.clone(), key.clone_key())?;
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    own: Option<Own>,
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> anyhow::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots);
    let mut config = match own {
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(pem: &[u8], file: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    // what exactly is wrong with a file that a machine writes helps nobody: most times it is half written, or another one
    let read = read.ok().with_context(|| format!("{file} is malformed: it is no PEM"))?;
    ensure!(!read.is_empty(), "{file} holds no certificate: PEM with BEGIN CERTIFICATE is needed");
    for certificate in &read {
        ParsedCertificate::try_from(certificate)
            .with_context(|| format!("{file} holds a malformed certificate"))?;
    }
    Ok(read)
}

fn roots(pem: &[u8], file: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem, file)? {
        roots.add(authority).with_context(|| format!("{file} holds what is no authority"))?;
    }
    Ok(roots)
}

/// Nothing of the file is ever shown.
fn private_key(pem: &[u8], file: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem)
        .ok()
        .with_context(|| format!("{file} holds no key: PEM with BEGIN PRIVATE KEY is needed"))
}

fn fits(
    (chain, secret): &Own,
    provider: &CryptoProvider,
    cert: &str,
    key: &str,
) -> anyhow::Result<()> {
    match CertifiedKey::from_der(chain.clone(), secret.clone_key(), provider) {
        Ok(_fits) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            bail!("the key {key} is not that of the certificate {cert}")
        }
        Err(error) => Err(error).with_context(|| format!("the key {key} cannot be used")),
    }
}

/// A certificate that nobody will accept is no better than none.
fn valid(
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    provider: &CryptoProvider,
    file: &str,
) -> anyhow::Result<()> {
    let Some(first) = chain.first() else { return Ok(()) };
    // its time is looked at first, before who signed it: that is the peer's to judge
    let judged = verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(first)?,
        &RootCertStore::empty(),
        &[],
        now,
        provider.signature_verification_algorithms.all,
    );
    // not in TLS's own words: they count the seconds, and would be news at each look
    let why = match judged {
        Err(rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. })) => "has expired",
        Err(rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. })) => {
            "is not valid yet"
        }
        _ => return Ok(()),
    };
    bail!("the certificate {file} {why}, by the clock of this machine")
}

#[cfg(test)]
mod tests {
    use super::*;
    use testbed::certificates::Authority;

    #[test]
    fn certificates_that_are_wrong_leave_the_old_ones_and_later_ones_are_taken() {
        let (authority, directory) = (Authority::new().expect("a key"), tempfile::tempdir());
        let directory = directory.expect("a directory");
        authority.write(directory.path(), &["till"]).expect("it can be written");
        let file = |flag, name| Some((flag, directory.path().join(name)));
        let (ca, cert, key) =
            (file("--ca", "ca.pem"), file("--cert", "till.pem"), file("--key", "till.key"));
        let files = Files { ca, cert, key };
        let (seen, configs) = read(&files).expect("they are well-formed");
        let (sender, mut held) = watch::channel(Arc::new(configs));
        let mut reader = Reader { files: files.clone(), seen, refused: None, sender };
        // whoever made them, they are not valid at the beginning of all time
        let (early, today) = (UnixTime::since_unix_epoch(Duration::ZERO), UnixTime::now());
        let mut look = |now| {
            reader.look(contents(&files), now);
            let changed = held.has_changed().expect("the reader lives");
            held.mark_unchanged();
            changed
        };
        assert!(!look(today), "nothing is new");
        let cert = directory.path().join("till.pem");
        fs::write(&cert, "half a").expect("it can be written");
        assert!(!look(today), "it is malformed");
        fs::remove_file(&cert).expect("it is there");
        assert!(!look(today), "it is missing");
        // first the certificate, then the key: between them they do not fit
        let next = authority.sign("till").expect("a name");
        fs::write(&cert, next.cert).expect("it can be written");
        assert!(!look(today), "the key is the old one's");
        fs::write(directory.path().join("till.key"), next.key).expect("it can be written");
        for _look in 0..2 {
            assert!(!look(early), "they come too early");
        }
        assert!(look(today), "now they fit");
        assert!(!look(today), "that is known");
    }
}
