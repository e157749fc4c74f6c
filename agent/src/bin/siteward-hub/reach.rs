//! How one gateway is reached: which broker, and which gateway behind it. The arguments that most verbs share.

use std::path::PathBuf;

use siteward::config::settings::Endpoint;
use siteward::hub::config::Push;
use siteward::hub::receive::parse_endpoint;
use siteward::record::Name;
use siteward::uplink::tls::TlsFiles;

#[derive(Debug, clap::Args)]
pub struct Broker {
    /// The broker: mqtts://host:port, or mqtt://host:port without TLS.
    #[arg(long = "broker", value_name = "URL", value_parser = parse_endpoint)]
    pub endpoint: Endpoint,
    /// Certificates of the CA that signed the broker's certificate (PEM). Required for mqtts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Broker {
    /// The file of our own certificate, where there is one.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.cert.clone()
    }

    pub fn tls(self) -> Result<Option<TlsFiles>, &'static str> {
        match (self.endpoint.tls, self.ca) {
            (true, Some(ca)) => Ok(Some(TlsFiles { ca: ca.into(), cert: self.cert, key: self.key })),
            (true, None) => Err("an mqtts:// broker needs --ca FILE, the CA that signed its certificate"),
            (false, _) => Ok(None),
        }
    }
}

/// The same where a broker may be left out.
#[derive(Debug, clap::Args)]
pub struct MaybeBroker {
    /// The broker: mqtts://host:port, or mqtt://host:port without TLS.
    #[arg(long = "broker", value_name = "URL", value_parser = parse_endpoint)]
    endpoint: Option<Endpoint>,
    /// Certificates of the CA that signed the broker's certificate (PEM). Required for mqtts.
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    ca: Option<PathBuf>,
    /// Our certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl MaybeBroker {
    pub fn given(self) -> Option<Broker> {
        let Self { endpoint, ca, cert, key } = self;
        endpoint.map(|endpoint| Broker { endpoint, ca, cert, key })
    }
}

#[derive(Debug, clap::Args)]
pub struct Reach {
    #[command(flatten)]
    broker: Broker,
    #[arg(long)]
    site: Name,
    #[arg(long)]
    gateway: Name,
    /// Our name at the broker [default: siteward-hub- and the verb]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
}

impl Reach {
    /// `verb` names us at the broker where no other name was given.
    pub fn push(self, verb: &str) -> Result<Push, String> {
        let client_id = self.client_id.unwrap_or_else(|| format!("siteward-hub-{verb}"));
        let broker = self.broker.endpoint.clone();
        Ok(Push { broker, tls: self.broker.tls()?, client_id, site: self.site, gateway: self.gateway })
    }
}
