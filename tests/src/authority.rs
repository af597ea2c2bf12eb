//! Certificates of an authority that a test made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority, and the folder that its certificates are written to.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

/// Whose a certificate is.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The files' name.
    pub name: &'a str,
    /// The common name.
    pub common_name: &'a str,
    /// The organisation, which Kubernetes takes for the group.
    pub group: Option<&'a str>,
    /// Hosts' names and addresses.
    pub hosts: &'a [&'a str],
}

// === impl Authority ===

impl Authority {
    /// A new authority; its own certificate and key are NAME.crt and NAME.key of the folder.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "embark tests");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        save(folder, name, &parameters.self_signed(&key)?.pem(), &key)?;
        Ok(Authority { issuer: Issuer::new(parameters, key), folder: folder.to_owned() })
    }

    /// Writes NAME.crt and NAME.key, of a certificate for servers and clients.
    ///
    /// # Errors
    /// The files cannot be written, or a host is none.
    pub fn issue(&self, subject: Subject<'_>) -> anyhow::Result<()> {
        let Subject { name, common_name, group, hosts } = subject;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(hosts)?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        save(&self.folder, name, &certificate.pem(), &key)
    }
}

// === free functions ===

fn save(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> anyhow::Result<()> {
    fs::write(folder.join(name).with_extension("crt"), certificate)?;
    fs::write(folder.join(name).with_extension("key"), key.serialize_pem())?;
    Ok(())
}
