//! A cluster's certificates. They are made anew for each cluster and end with its state folder.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Name, common name and group of each certificate. Every one has all addresses, and is for servers and clients.
const LEAVES: [(&str, &str, Option<&str>); 7] = [
    ("apiserver", "kube-apiserver", None),
    ("admin", "admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("proxy", "system:kube-proxy", None),
    ("kubelet", "system:node:node", Some("system:nodes")),
    ("front-proxy", "front-proxy-client", None),
];

/// Writes NAME.crt and NAME.key of all of them, of their authority (`ca`) and of what signs ServiceAccounts' tokens
/// (`service-accounts.key`, `.pub`) into a folder.
pub(super) fn write(folder: &Path, addresses: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let tokens = KeyPair::generate()?;
    fs::write(folder.join("service-accounts.key"), tokens.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), tokens.public_key_pem())?;
    let authority = authority(folder)?;
    for (name, common_name, group) in LEAVES {
        let mut parameters =
            CertificateParams::new(addresses.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(group) = group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &authority)?;
        save(folder, name, &certificate.pem(), &key)?;
    }
    Ok(())
}

fn authority(folder: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "embark tests");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    save(folder, "ca", &parameters.self_signed(&key)?.pem(), &key)?;
    Ok(Issuer::new(parameters, key))
}

fn save(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> anyhow::Result<()> {
    fs::write(folder.join(name).with_extension("crt"), certificate)?;
    fs::write(folder.join(name).with_extension("key"), key.serialize_pem())?;
    Ok(())
}
