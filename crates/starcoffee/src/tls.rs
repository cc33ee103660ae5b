//! The flags of TLS: what a process shows, and whom it believes.

use anyhow::ensure;
use chassis::Host;
use mesh::tls::{self, Certificates, Files};
use std::{path::PathBuf, time::Duration};

const CA: &str = "--tls-ca";
const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";

/// Where the certificates are. The ids are longer than the flags: the bus has its own.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
#[group(skip)]
pub(crate) struct Args {
    /// PEM file of the authorities whose certificates are believed
    #[arg(
        id = "mesh_tls_ca",
        long = "tls-ca",
        global = true,
        env = "STARCOFFEE_TLS_CA",
        value_name = "FILE"
    )]
    pub(crate) tls_ca: Option<PathBuf>,
    /// PEM file of the certificate to show: who this is
    #[arg(
        id = "mesh_tls_cert",
        long = "tls-cert",
        global = true,
        env = "STARCOFFEE_TLS_CERT",
        value_name = "FILE"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(
        id = "mesh_tls_key",
        long = "tls-key",
        global = true,
        env = "STARCOFFEE_TLS_KEY",
        value_name = "FILE"
    )]
    pub(crate) tls_key: Option<PathBuf>,
}

/// The certificates of a process that serves.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
#[group(skip)]
pub(crate) struct Serving {
    #[command(flatten)]
    files: Args,
    /// How often the files are looked at: new connections use new ones, old connections go on
    #[arg(long, env = "STARCOFFEE_TLS_RELOAD", value_name = "DURATION", default_value = "10s", value_parser = chassis::args::period)]
    tls_reload: Duration,
}

impl Args {
    fn files(&self) -> Files {
        let named = |flag, path: &Option<PathBuf>| path.clone().map(|path| (flag, path));
        Files {
            ca: named(CA, &self.tls_ca),
            cert: named(CERT, &self.tls_cert),
            key: named(KEY, &self.tls_key),
        }
    }

    /// For a client command, if there is a URL that needs it.
    ///
    /// # Errors
    /// A file is not what it should be.
    pub(crate) fn client(&self, urls: &str) -> anyhow::Result<Option<tls::Client>> {
        if !urls.contains("https://") {
            return Ok(None);
        }
        Ok(Certificates::once(&self.files())?.client())
    }
}

impl Serving {
    /// Whether callers have to say who they are.
    pub(crate) fn knows_callers(&self) -> bool {
        self.files.tls_ca.is_some()
    }

    /// For a service: what it listens with, and what it calls with.
    ///
    /// # Errors
    /// A file is not what it should be, or one is missing.
    pub(crate) fn open(
        &self,
        host: &Host,
    ) -> anyhow::Result<(Option<tls::Server>, Option<tls::Client>)> {
        let files = self.files.files();
        if files.ca.is_none() && files.cert.is_none() && files.key.is_none() {
            return Ok((None, None));
        }
        ensure!(
            files.cert.is_some(),
            "a service that believes certificates must show one: {CERT} and {KEY} are missing"
        );
        let certificates = Certificates::open(host, files, self.tls_reload)?;
        Ok((certificates.server(), certificates.client()))
    }
}
