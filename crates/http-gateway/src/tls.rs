//! The server's TLS identity: certificates and keys from PEM files, read again on reload.
//!
//! A handshake takes the configuration of the moment with [`Identity::current`]; established connections keep the one
//! they began with. A reload that fails leaves all the old ones in service. Keys and their bytes never reach a log.
//!
//! | file | what happens there |
//! |---|---|
//! | `read.rs` | PEM files, and what people are told of those that are no good |
//! | `names.rs` | which certificate a client gets |
//! | `clients.rs` | which clients are believed |
//! | `shown.rs` | what a client's certificate says |

mod clients;
mod names;
mod read;
mod shown;

use std::sync::{Arc, PoisonError, RwLock};

use ctl_config::{Config, TlsVersion};
use rustls::SupportedProtocolVersion;
use rustls::crypto::ring;
use rustls::server::{ProducesTickets, ServerConfig, ServerSessionMemoryCache};
use rustls::version::TLS13;
use rustls_pki_types::UnixTime;

use clients::clients;
use names::Names;
pub use read::TlsError;
use read::{pair, provider};
pub use shown::ClientCertificate;

/// Sessions kept for TLS 1.2 clients that know no tickets; they are rare, everyone else carries a ticket.
const SESSIONS_MAX: usize = 1024;

/// The protocols offered in the handshake (RFC 7301), the better one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificates and keys in service.
#[derive(Debug)]
pub struct Identity {
    config: Arc<Config>,
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    server: Arc<ServerConfig>,
    /// Outlives reloads, so that sessions can be resumed across them; it changes its key every six hours and knows the one before,
    /// so that a stolen key opens half a day of sessions at most. Ends when clients are believed by other files than before: a
    /// resumed session is not verified again.
    tickets: Arc<dyn ProducesTickets>,
    /// By which files clients are believed.
    believed: Option<[u8; 32]>,
}

impl Identity {
    /// Reads all files. `None`: the configuration has no certificate.
    pub fn load(config: &Arc<Config>) -> Result<Option<Self>, TlsError> {
        if !config.speaks_tls() {
            return Ok(None);
        }
        let current = RwLock::new(server(config, None, UnixTime::now())?);
        Ok(Some(Self { config: Arc::clone(config), current }))
    }

    /// Reads all files again. On an error the old certificates stay in service.
    pub fn reload(&self) -> Result<(), TlsError> {
        let before = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let server = server(&self.config, Some(&before), UnixTime::now())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    /// What a new handshake uses.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).server)
    }
}

/// Who the client of a session is. `Ok(None)`: it has shown no certificate. The error: it is no longer good, or of no use.
pub fn client(session: &rustls::ServerConnection) -> Result<Option<Arc<ClientCertificate>>, &'static str> {
    let Some(chain) = session.peer_certificates() else { return Ok(None) };
    let shown =
        ClientCertificate::new(chain).ok_or("the client's certificate is too long or not understood")?;
    if shown.has_expired(UnixTime::now()) {
        return Err("the client's certificate has expired since its session began");
    }
    Ok(Some(Arc::new(shown)))
}

fn server(config: &Config, before: Option<&Current>, now: UnixTime) -> Result<Current, TlsError> {
    let pairs = config.certificates().into_iter().map(|files| {
        let pair = pair(files, now)?;
        if pair.names.is_empty() && files.index.is_some() {
            let certificate = files.certificate.display();
            let hint = "it needs subject alternative names; who asks for no name gets the first certificate";
            tracing::warn!(%certificate, hint, "the certificate has no name, so no client gets it");
        }
        Ok(pair)
    });
    let names = Names::new(pairs.collect::<Result<_, _>>()?, config.tls.strict_sni);
    let clients = clients(config)?;
    let believed = clients.as_ref().map(|clients| clients.digest);
    let tickets = match before.filter(|before| before.believed == believed) {
        Some(before) => Arc::clone(&before.tickets),
        None => ring::Ticketer::new().map_err(|error| no_start(&error))?,
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions(config.tls.min_version))
        .map_err(|error| no_start(&error))?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(names));
    server.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    server.ticketer = Arc::clone(&tickets);
    server.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    Ok(Current { server: Arc::new(server), tickets, believed })
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match oldest {
        TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        TlsVersion::V1_3 => &ONLY_1_3,
    }
}

/// What no file is to blame for.
fn no_start(error: &rustls::Error) -> TlsError {
    TlsError {
        message: "TLS cannot start".into(),
        detail: error.to_string(),
        hint: "the system's random number generator is not available",
        index: None,
        key: "certificate",
    }
}

#[cfg(test)]
mod tests;
