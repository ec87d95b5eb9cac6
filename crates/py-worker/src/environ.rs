//! The environ of a request: a copy of a template, filled.
//!
//! The template holds every key that each request has, so that a copy clones one hash table of the right size and
//! setting these keys never grows it. Names of headers become keys once and are remembered (`names`).
//! See docs/decisions/0003-environ-and-frames.md.

use py_link::{Body, ClientAuth, Request, Scheme, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::file::FileWrapper;
use crate::input::EmptyInput;
use crate::names::{Names, Place};
use crate::text::{certificates, is_token, latin1, percent_decode};

/// What becomes of a header.
enum Use {
    /// It is set under this key.
    Key { key: Py<PyString>, separator: &'static [u8] },
    /// The link knows better, or it must not reach the app.
    Drop,
}

struct Variable {
    used: Use,
    /// The number of the request that had it last: seen again in the same one, it is a repetition.
    request: u64,
}

impl Variable {
    fn new(py: Python<'_>, name: &[u8]) -> Self {
        Self { used: use_of(py, name), request: 0 }
    }
}

/// The last value of a variable that seldom changes, as bytes and as Python's string.
struct Remembered {
    bytes: Vec<u8>,
    string: Py<PyString>,
}

impl Remembered {
    fn new(py: Python<'_>) -> Self {
        Self { bytes: Vec::new(), string: PyString::new(py, "").unbind() }
    }

    fn get<'a>(&'a mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<&'a Py<PyString>> {
        if self.bytes != bytes {
            self.string = latin1(py, bytes)?.unbind();
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
        }
        Ok(&self.string)
    }
}

/// One a slot.
pub(crate) struct Builder {
    template: Py<PyDict>,
    names: Names<Variable>,
    request: u64,
    path: Vec<u8>,
    server_name: Remembered,
    server_port: Remembered,
    remote_addr: Remembered,
}

impl Builder {
    pub(crate) fn new(py: Python<'_>, multithread: bool) -> PyResult<Self> {
        Ok(Self {
            template: template(py, multithread)?.unbind(),
            names: Names::new(|name| Variable::new(py, name)),
            request: 0,
            path: Vec::new(),
            server_name: Remembered::new(py),
            server_port: Remembered::new(py),
            remote_addr: Remembered::new(py),
        })
    }

    /// Everything but `wsgi.input`, which the template has for requests without a body.
    pub(crate) fn build<'py>(
        &mut self,
        py: Python<'py>,
        request: &Request<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template.bind(py).copy()?;
        self.line(py, request, &environ)?;
        environ
            .set_item(intern!(py, "SERVER_NAME"), self.server_name.get(py, request.server_name)?.bind(py))?;
        let mut digits = itoa::Buffer::new();
        let port = digits.format(request.server_port).as_bytes();
        environ.set_item(intern!(py, "SERVER_PORT"), self.server_port.get(py, port)?.bind(py))?;
        environ
            .set_item(intern!(py, "REMOTE_ADDR"), self.remote_addr.get(py, request.remote_addr)?.bind(py))?;
        let port = latin1(py, digits.format(request.remote_port).as_bytes())?;
        environ.set_item(intern!(py, "REMOTE_PORT"), port)?;
        environ.set_item(intern!(py, "HTTP_X_REQUEST_ID"), latin1(py, request.id)?)?;
        self.headers(py, request, &environ)?;
        client(py, &request.client, &environ)?;
        let length = match request.body {
            Body::Inline(bytes) => Some(bytes.len() as u64),
            Body::File { len } => Some(len),
            Body::Stream { len } => len,
            Body::None => None,
        };
        if let Some(length) = length {
            let length = latin1(py, digits.format(length).as_bytes())?;
            environ.set_item(intern!(py, "CONTENT_LENGTH"), length)?;
        }
        Ok(environ)
    }

    /// What stands in the request line.
    fn line(&mut self, py: Python<'_>, request: &Request<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let method = match request.method {
            // The template has GET.
            b"GET" => None,
            b"POST" => Some(intern!(py, "POST").clone()),
            b"HEAD" => Some(intern!(py, "HEAD").clone()),
            other => Some(latin1(py, other)?),
        };
        if let Some(method) = method {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        let protocol = match request.version {
            // The template has HTTP/1.1.
            Version::Http11 => None,
            Version::Http10 => Some(intern!(py, "HTTP/1.0")),
            Version::Http2 => Some(intern!(py, "HTTP/2.0")),
            Version::Http3 => Some(intern!(py, "HTTP/3.0")),
        };
        if let Some(protocol) = protocol {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), protocol)?;
        }
        if request.scheme == Scheme::Https {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
            // PEP 3333, "environ Variables": a server of SSL should provide what Apache does.
            environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
        }
        let target = latin1(py, request.target)?;
        environ.set_item(intern!(py, "RAW_URI"), &target)?;
        environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
        let (path, query) = match memchr::memchr(b'?', request.target) {
            Some(at) => (
                request.target.get(..at).unwrap_or_default(),
                request.target.get(at + 1..).unwrap_or_default(),
            ),
            None => (request.target, &[][..]),
        };
        if !query.is_empty() {
            environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, query)?)?;
        }
        self.path.clear();
        match path {
            // `OPTIONS *` has no path; PEP 3333 wants it empty or with a slash.
            b"*" => {}
            path if memchr::memchr(b'%', path).is_some() => percent_decode(path, &mut self.path),
            path => self.path.extend_from_slice(path),
        }
        let mut path_info = self.path.as_slice();
        if !request.mount.is_empty() {
            let below = path_info.strip_prefix(request.mount);
            if let Some(below) = below.filter(|rest| rest.is_empty() || rest.starts_with(b"/")) {
                path_info = below;
                environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, request.mount)?)?;
            }
        }
        environ.set_item(intern!(py, "PATH_INFO"), latin1(py, path_info)?)
    }

    fn headers(
        &mut self,
        py: Python<'_>,
        request: &Request<'_>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        self.request += 1;
        let mut place = Place::default();
        for (name, value) in request.headers() {
            let Some(known) = self.names.get(&mut place, name, |name| Variable::new(py, name)) else {
                if let Use::Key { key, separator } = use_of(py, name) {
                    let repeated = environ.contains(&key)?;
                    set(py, environ, &key, value, repeated.then_some(separator))?;
                }
                continue;
            };
            let repeated = known.request == self.request;
            known.request = self.request;
            match &known.used {
                Use::Key { key, separator } => {
                    set(py, environ, key, value, repeated.then_some(separator))?;
                }
                // The client said how long nothing is.
                Use::Drop if name == b"content-length" && request.body == Body::None => {
                    environ.set_item(intern!(py, "CONTENT_LENGTH"), intern!(py, "0"))?;
                }
                Use::Drop => {}
            }
        }
        Ok(())
    }
}

/// Who the client is by its certificate, in the variables of Apache's mod_ssl; SSL_CLIENT_SERIAL and the fingerprint are what nginx's users
/// call them.
fn client(py: Python<'_>, client: &ClientAuth<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
    let shown = match client {
        ClientAuth::NotAsked => return Ok(()),
        ClientAuth::Nobody => return environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), intern!(py, "NONE")),
        ClientAuth::Shown(shown) => shown,
    };
    environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), intern!(py, "SUCCESS"))?;
    let mut certificates = certificates(shown.chain);
    let own = certificates.next().unwrap_or_default();
    for (key, value) in [
        (intern!(py, "SSL_CLIENT_S_DN"), shown.subject),
        (intern!(py, "SSL_CLIENT_S_DN_CN"), shown.common_name),
        (intern!(py, "SSL_CLIENT_I_DN"), shown.issuer),
        (intern!(py, "SSL_CLIENT_SERIAL"), shown.serial),
        (intern!(py, "SSL_CLIENT_M_SERIAL"), shown.serial),
        (intern!(py, "SSL_CLIENT_FINGERPRINT"), shown.fingerprint),
        (intern!(py, "SSL_CLIENT_V_START"), shown.not_before),
        (intern!(py, "SSL_CLIENT_V_END"), shown.not_after),
        (intern!(py, "SSL_CLIENT_CERT"), own),
    ] {
        environ.set_item(key, latin1(py, value)?)?;
    }
    for (number, certificate) in certificates.enumerate() {
        environ.set_item(format!("SSL_CLIENT_CERT_CHAIN_{number}"), latin1(py, certificate)?)?;
    }
    Ok(())
}

/// Sets a header, or joins it to the one of the same name before (RFC 9110, 5.3).
fn set(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    key: &Py<PyString>,
    value: &[u8],
    separator: Option<&[u8]>,
) -> PyResult<()> {
    let value = latin1(py, value)?;
    let Some(separator) = separator else { return environ.set_item(key, value) };
    match environ.get_item(key)? {
        Some(before) => environ.set_item(key, before.add(latin1(py, separator)?)?.add(value)?),
        None => environ.set_item(key, value),
    }
}

/// Which key a header has, if the app is to see it.
fn use_of(py: Python<'_>, name: &[u8]) -> Use {
    // Length and framing are those of the link; the request id is the gateway's; HTTP_PROXY is a setting of many HTTP
    // clients ("httpoxy").
    if [&b"content-length"[..], b"transfer-encoding", b"x-request-id", b"proxy"].contains(&name) {
        return Use::Drop;
    }
    if name == b"content-type" {
        return Use::Key { key: intern!(py, "CONTENT_TYPE").clone().unbind(), separator: b"," };
    }
    // `x_real_ip` and `x-real-ip` would share a key: a client could speak for a proxy.
    if !is_token(name) || name.contains(&b'_') {
        return Use::Drop;
    }
    let mut key = String::with_capacity(5 + name.len());
    key.push_str("HTTP_");
    for &byte in name {
        key.push(if byte == b'-' { '_' } else { char::from(byte.to_ascii_uppercase()) });
    }
    // RFC 6265, 5.4 and RFC 9113, 8.2.3: pieces of a cookie are joined with "; ".
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b"," };
    Use::Key { key: PyString::intern(py, &key).unbind(), separator }
}

fn template(py: Python<'_>, multithread: bool) -> PyResult<Bound<'_, PyDict>> {
    let template = PyDict::new(py);
    let empty = intern!(py, "");
    let set = |key: &str, value: &Bound<'_, PyAny>| template.set_item(PyString::intern(py, key), value);
    set("wsgi.version", PyTuple::new(py, [1, 0])?.as_any())?;
    set("wsgi.url_scheme", intern!(py, "http"))?;
    set("wsgi.input", Bound::new(py, EmptyInput)?.as_any())?;
    set("wsgi.input_terminated", &true.into_pyobject(py)?.to_owned())?;
    set("wsgi.errors", &py.import("sys")?.getattr("stderr")?)?;
    set("wsgi.multithread", &multithread.into_pyobject(py)?.to_owned())?;
    set("wsgi.multiprocess", &true.into_pyobject(py)?.to_owned())?;
    set("wsgi.run_once", &false.into_pyobject(py)?.to_owned())?;
    set("wsgi.file_wrapper", py.get_type::<FileWrapper>().as_any())?;
    set("SERVER_SOFTWARE", PyString::new(py, concat!("quintet/", env!("CARGO_PKG_VERSION"))).as_any())?;
    set("REQUEST_METHOD", intern!(py, "GET"))?;
    set("SERVER_PROTOCOL", intern!(py, "HTTP/1.1"))?;
    for key in [
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "RAW_URI",
        "REQUEST_URI",
        "SERVER_NAME",
        "SERVER_PORT",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "HTTP_X_REQUEST_ID",
    ] {
        set(key, empty)?;
    }
    Ok(template)
}
