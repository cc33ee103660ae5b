//! Certificates for tests: an authority of the test's own, and what it signs for this machine.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
    string::Ia5String,
};
use std::{fs, path::Path};
use uuid::Uuid;

/// An authority. Two of them sign nothing for each other.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new([])?;
        // authorities are told apart by their names
        let name = format!("authority {}", Uuid::now_v7());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its own certificate, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a service of this name on this machine: `NAME.shop.test`, `localhost` and the loopback addresses.
    ///
    /// # Errors
    /// No key can be made, or it is no name.
    pub fn sign(&self, name: &str) -> anyhow::Result<Signed> {
        self.signed(&local(name)?)
    }

    /// As [`Self::sign`], and it has been over since long ago.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_expired(&self, name: &str) -> anyhow::Result<Signed> {
        let mut params = local(name)?;
        params.not_after = date_time_ymd(2001, 9, 9);
        self.signed(&params)
    }

    /// A certificate for a workload by its SPIFFE id, and for no host.
    ///
    /// # Errors
    /// No key can be made, or it is no id.
    pub fn sign_spiffe(&self, id: &str) -> anyhow::Result<Signed> {
        let mut params = CertificateParams::new([])?;
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id)?)];
        self.signed(&params)
    }

    /// Writes `ca.pem`, and `NAME.pem` with `NAME.key` for each name, as [`Self::sign`] signs them.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path, names: &[&str]) -> anyhow::Result<()> {
        let write = |name: String, pem: &str| {
            let path = directory.join(name);
            fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))
        };
        write("ca.pem".to_owned(), &self.pem)?;
        for name in names {
            let Signed { cert, key } = self.sign(name)?;
            write(format!("{name}.pem"), &cert)?;
            write(format!("{name}.key"), &key)?;
        }
        Ok(())
    }

    fn signed(&self, params: &CertificateParams) -> anyhow::Result<Signed> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed { cert, key: key.serialize_pem() })
    }
}

fn local(name: &str) -> anyhow::Result<CertificateParams> {
    let name = format!("{name}.shop.test");
    Ok(CertificateParams::new([name, "localhost".into(), "127.0.0.1".into(), "::1".into()])?)
}
