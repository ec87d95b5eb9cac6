//! The scope of an exchange: a copy of a template dict, filled. ASGI 3.0, "HTTP Connection Scope" and "WebSocket Connection
//! Scope" of the HTTP & WebSocket message format 2.5.
//!
//! Names of headers become bytes objects once and are remembered (`names`).

use py_link::{ClientAuth, Exchange, Local, Request, Scheme, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::names::{Names, Place};
use crate::text::{certificates, latin1, percent_decode};

/// What the exchange keeps of its request, for the log.
pub(crate) struct About {
    pub(crate) id: Py<PyBytes>,
    pub(crate) method: Py<PyString>,
    pub(crate) path: Py<PyString>,
}

/// What becomes of a header.
struct Field {
    name: Py<PyBytes>,
    is_for_apps: bool,
}

impl Field {
    fn new(py: Python<'_>, name: &[u8]) -> Self {
        Self { name: PyBytes::new(py, name).unbind(), is_for_apps: is_for_apps(name) }
    }
}

/// One a process.
pub(crate) struct Scopes {
    http: Py<PyDict>,
    websocket: Py<PyDict>,
    asgi: Py<PyDict>,
    http_extensions: Py<PyDict>,
    websocket_extensions: Py<PyDict>,
    /// The lifespan's, when the app has one.
    state: Option<Py<PyDict>>,
    /// Where the last connection came in, and how apps are told so: mostly the same for all.
    server: Option<(Local<'static>, Py<PyTuple>)>,
    names: Names<Field>,
    path: Vec<u8>,
}

impl Scopes {
    pub(crate) fn new(py: Python<'_>, state: Option<Py<PyDict>>) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", "2.5")?;
        let template = |kind: &str, scheme: &str| {
            let template = PyDict::new(py);
            template.set_item("type", kind)?;
            template.set_item("http_version", "1.1")?;
            template.set_item("scheme", scheme)?;
            for key in
                ["asgi", "path", "raw_path", "query_string", "headers", "client", "server", "extensions"]
            {
                template.set_item(key, py.None())?;
            }
            template.set_item("root_path", "")?;
            PyResult::Ok(template)
        };
        let http = template("http", "http")?;
        http.set_item("method", "GET")?;
        let websocket = template("websocket", "ws")?;
        let http_extensions = PyDict::new(py);
        for name in ["http.response.pathsend", "http.response.zerocopysend"] {
            http_extensions.set_item(name, PyDict::new(py))?;
        }
        let websocket_extensions = PyDict::new(py);
        websocket_extensions.set_item("websocket.http.response", PyDict::new(py))?;
        Ok(Self {
            http: http.unbind(),
            websocket: websocket.unbind(),
            asgi: asgi.unbind(),
            http_extensions: http_extensions.unbind(),
            websocket_extensions: websocket_extensions.unbind(),
            state,
            server: None,
            names: Names::new(|name| Field::new(py, name)),
            path: Vec::new(),
        })
    }

    /// The scope of a request.
    pub(crate) fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
    ) -> PyResult<(Bound<'py, PyDict>, About)> {
        let is_websocket = request.exchange == Exchange::WebSocket;
        let scope = if is_websocket { &self.websocket } else { &self.http }.bind(py).copy()?;
        scope.set_item(intern!(py, "asgi"), self.asgi.bind(py).copy()?)?;
        let method = match request.method {
            // The template has GET.
            b"GET" => intern!(py, "GET").clone(),
            other => {
                let method = latin1(py, other)?;
                if !is_websocket {
                    scope.set_item(intern!(py, "method"), &method)?;
                }
                method
            }
        };
        match request.version {
            // The template has 1.1.
            Version::Http11 => {}
            Version::Http10 => scope.set_item(intern!(py, "http_version"), intern!(py, "1.0"))?,
            Version::Http2 => scope.set_item(intern!(py, "http_version"), intern!(py, "2"))?,
            Version::Http3 => scope.set_item(intern!(py, "http_version"), intern!(py, "3"))?,
        }
        if request.scheme == Scheme::Https {
            let scheme = if is_websocket { intern!(py, "wss") } else { intern!(py, "https") };
            scope.set_item(intern!(py, "scheme"), scheme)?;
        }
        let path = self.target(py, request, &scope)?;
        let id = PyBytes::new(py, request.id);
        let (headers, protocols, wants_trailers) = self.headers(py, request, &id)?;
        scope.set_item(intern!(py, "headers"), headers)?;
        if is_websocket {
            scope.set_item(intern!(py, "subprotocols"), protocols)?;
        }
        if !request.remote_addr.is_empty() {
            let host = latin1(py, request.remote_addr)?.into_any();
            let port = request.remote_port.into_pyobject(py)?.into_any();
            scope.set_item(intern!(py, "client"), PyTuple::new(py, [host, port])?)?;
        }
        if let Some(local) = &request.local {
            scope.set_item(intern!(py, "server"), self.server(py, local)?)?;
        }
        scope.set_item(intern!(py, "extensions"), self.extensions(py, request, wants_trailers)?)?;
        if let Some(state) = &self.state {
            // "Lifespan State": a shallow copy for each request.
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok((scope, About { id: id.unbind(), method: method.unbind(), path: path.unbind() }))
    }

    /// "The listening address for this server": the Host field is among the headers.
    fn server<'py>(&mut self, py: Python<'py>, local: &Local<'_>) -> PyResult<Bound<'py, PyTuple>> {
        if let Some((known, server)) = &self.server
            && known == local
        {
            return Ok(server.bind(py).clone());
        }
        let (local, server) = match local {
            Local::Inet(address) => {
                let host = PyString::new(py, &address.ip().to_string()).into_any();
                let port = address.port().into_pyobject(py)?.into_any();
                (Local::Inet(*address), PyTuple::new(py, [host, port])?)
            }
            Local::Unix(path) => {
                let shown = PyString::new(py, &String::from_utf8_lossy(path)).into_any();
                let server = PyTuple::new(py, [shown, py.None().into_bound(py)])?;
                (Local::Unix(path.to_vec().into()), server)
            }
        };
        self.server = Some((local, server.clone().unbind()));
        Ok(server)
    }

    /// `path`, `raw_path`, `query_string` and `root_path`.
    fn target<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        scope: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyString>> {
        let (raw, query) = match memchr::memchr(b'?', request.target) {
            Some(at) => (
                request.target.get(..at).unwrap_or_default(),
                request.target.get(at + 1..).unwrap_or_default(),
            ),
            None => (request.target, &[][..]),
        };
        self.path.clear();
        if memchr::memchr(b'%', raw).is_some() {
            percent_decode(raw, &mut self.path);
        } else {
            self.path.extend_from_slice(raw);
        }
        // What is no UTF-8 is replaced, as other servers do: the scope's path is a str, raw_path has the truth.
        let path = PyString::new(py, &String::from_utf8_lossy(&self.path));
        scope.set_item(intern!(py, "path"), &path)?;
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, raw))?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, query))?;
        if !request.mount.is_empty() {
            let below = self.path.strip_prefix(request.mount);
            if below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
                // The path keeps it: apps cut it off themselves.
                let root = PyString::new(py, &String::from_utf8_lossy(request.mount));
                scope.set_item(intern!(py, "root_path"), root)?;
            }
        }
        Ok(path)
    }

    /// The headers, the WebSocket subprotocols among them, and whether the client takes trailers.
    fn headers<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
        id: &Bound<'py, PyBytes>,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, bool)> {
        let headers = PyList::empty(py);
        let protocols = PyList::empty(py);
        let mut wants_trailers = matches!(request.version, Version::Http2 | Version::Http3);
        let mut place = Place::default();
        for (name, value) in request.headers() {
            let own;
            let known = self.names.get(&mut place, name, |name| Field::new(py, name));
            let field = if let Some(known) = known {
                &*known
            } else {
                own = Field::new(py, name);
                &own
            };
            if !field.is_for_apps {
                continue;
            }
            let pair = [field.name.bind(py).clone(), PyBytes::new(py, value)];
            headers.append(PyTuple::new(py, pair)?)?;
            match name {
                b"te" => wants_trailers |= mentions(value, b"trailers"),
                b"sec-websocket-protocol" => {
                    for protocol in value.split(|&byte| byte == b',') {
                        protocols.append(latin1(py, protocol.trim_ascii())?)?;
                    }
                }
                _ => {}
            }
        }
        let name = intern_bytes(py)?;
        headers.append(PyTuple::new(py, [name, id.clone()])?)?;
        Ok((headers, protocols, wants_trailers))
    }

    fn extensions<'py>(
        &self,
        py: Python<'py>,
        request: &Request<'_>,
        wants_trailers: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let extensions = if request.exchange == Exchange::WebSocket {
            self.websocket_extensions.bind(py).copy()?
        } else {
            let extensions = self.http_extensions.bind(py).copy()?;
            // RFC 8297, 3: not to clients of HTTP/1.0.
            if request.version != Version::Http10 {
                extensions.set_item(intern!(py, "http.response.early_hint"), PyDict::new(py))?;
            }
            // RFC 9110, 6.5.1: trailers that matter are for clients that say they take them.
            if wants_trailers {
                extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
            }
            extensions
        };
        if let Some(tls) = request.tls {
            let facts = PyDict::new(py);
            // The gateway keeps its own certificate for itself.
            facts.set_item(intern!(py, "server_cert"), py.None())?;
            let chain = PyList::empty(py);
            if let ClientAuth::Shown(shown) = &request.client {
                for certificate in certificates(shown.chain) {
                    chain.append(latin1(py, certificate)?)?;
                }
                facts.set_item(intern!(py, "client_cert_name"), latin1(py, shown.subject)?)?;
            } else {
                facts.set_item(intern!(py, "client_cert_name"), py.None())?;
            }
            facts.set_item(intern!(py, "client_cert_chain"), chain)?;
            // One that is not good ends the handshake: there is never an error to tell.
            facts.set_item(intern!(py, "client_cert_error"), py.None())?;
            facts.set_item(intern!(py, "tls_version"), tls.version)?;
            facts.set_item(intern!(py, "cipher_suite"), tls.cipher_suite)?;
            extensions.set_item(intern!(py, "tls"), facts)?;
        }
        Ok(extensions)
    }
}

/// Does a header reach the app?
fn is_for_apps(name: &[u8]) -> bool {
    // Framing is the gateway's, the request id, too. The others would reach Django's META as variables that something else
    // owns: HTTP_PROXY ("httpoxy"), or `x_real_ip` in the place of `x-real-ip`.
    ![&b"transfer-encoding"[..], b"x-request-id", b"proxy"].contains(&name) && !name.contains(&b'_')
}

/// Is this member in a comma-separated list? Letter case does not matter, parameters are not looked at.
fn mentions(list: &[u8], member: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|one| {
        one.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(member)
    })
}

fn intern_bytes(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    static NAME: pyo3::sync::PyOnceLock<Py<PyBytes>> = pyo3::sync::PyOnceLock::new();
    let name = NAME.get_or_try_init(py, || PyResult::Ok(PyBytes::new(py, b"x-request-id").unbind()))?;
    Ok(name.bind(py).clone())
}
