//! Certificates for one test: a CA of our own, a server certificate for loopback, client certificates by name, and a foreign CA.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// One certificate authority and a directory for what it issues.
pub struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub ca: PathBuf,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes a CA called `name` in a new directory.
    pub fn new(directory: &Path, name: &str) -> Self {
        fs::create_dir_all(directory).expect("a directory for certificates");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names, no error");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let ca = directory.join("ca.pem");
        fs::write(&ca, certificate.pem()).expect("the CA's certificate is written");
        write_private(&directory.join("ca.key"), &key.serialize_pem());
        Self { directory: directory.to_path_buf(), issuer: Issuer::new(params, key), ca }
    }

    /// A certificate for a server on loopback.
    pub fn server(&self) -> Identity {
        self.issue("server", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client whose common name is `name`.
    pub fn client(&self, name: &str) -> Identity {
        self.issue(name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a server on loopback, in files called `name`; the files of an earlier one are written over.
    pub fn server_called(&self, name: &str) -> Identity {
        self.issue(name, &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client with this common name and DNS name.
    pub fn client_with_dns(&self, name: &str, dns: &str) -> Identity {
        self.issue(name, &[dns], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same as [`Self::server_called`], from so many days from now to so many.
    pub fn server_between(&self, name: &str, days: (i64, i64)) -> Identity {
        self.issue_between(name, &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth, Some(days))
    }

    /// The same as [`Self::client`], from so many days from now to so many.
    pub fn client_between(&self, name: &str, days: (i64, i64)) -> Identity {
        self.issue_between(name, &[], ExtendedKeyUsagePurpose::ClientAuth, Some(days))
    }

    /// What an enterprise authority does with a request: openssl checks its signature and issues a certificate for a client.
    pub fn sign(&self, csr: &str) -> String {
        let (request, extensions) = (self.directory.join("request.pem"), self.directory.join("extensions"));
        fs::write(&request, csr).expect("the request is written");
        fs::write(&extensions, "extendedKeyUsage = clientAuth\nkeyUsage = digitalSignature\n").expect("the extensions are written");
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "90", "-CAcreateserial", "-in"]).arg(&request).arg("-extfile").arg(&extensions);
        command.arg("-CA").arg(&self.ca).arg("-CAkey").arg(self.directory.join("ca.key"));
        let output = command.output().expect("openssl runs");
        assert!(output.status.success(), "openssl does not sign: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("PEM")
    }

    fn issue(&self, name: &str, hosts: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
        self.issue_between(name, hosts, usage, None)
    }

    fn issue_between(&self, name: &str, hosts: &[&str], usage: ExtendedKeyUsagePurpose, days: Option<(i64, i64)>) -> Identity {
        let hosts: Vec<String> = hosts.iter().map(|&h| h.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names are valid");
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        if let Some((from, to)) = days {
            let made = fs::metadata(&self.ca).and_then(|ca| ca.modified()).expect("the CA was written just now");
            let day = |number: i64| {
                let distance = Duration::from_hours(24 * number.unsigned_abs());
                if number < 0 { made - distance } else { made + distance }
            };
            (params.not_before, params.not_after) = (day(from).into(), day(to).into());
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let identity = Identity { cert: self.directory.join(format!("{name}.pem")), key: self.directory.join(format!("{name}.key")) };
        fs::write(&identity.cert, certificate.pem()).expect("the certificate is written");
        write_private(&identity.key, &key.serialize_pem());
        identity
    }
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).expect("the key is written");
}
