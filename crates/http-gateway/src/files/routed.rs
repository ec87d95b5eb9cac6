//! The directories of routes (`[[route]] files`): the whole path is looked up, a slash at its end means the index.html there.

use std::borrow::Cow;

use ctl_admin::words::AppReport;
use ctl_config::Config;

use super::mount::{Kind, Miss, Plan};
use super::root::{OpenError, Wait};
use super::{Accepted, Ask, FileResponse, Files, path, reply};
use crate::message::{Body, Headers, Method, RequestHead};
use crate::route::{directories, one_slash};

/// What a directory is answered with.
const INDEX: &[u8] = b"index.html";

/// In the order of the routes.
pub(super) fn plan(config: &Config, app: &AppReport) -> impl Iterator<Item = Plan> {
    let edited = app.debug;
    directories(config).map(move |dir| Plan {
        prefix: b"/".to_vec(),
        roots: vec![(Vec::new(), dir.clone())],
        kind: Kind::Static,
        miss: Miss::NotFound,
        hashed: false,
        edited,
    })
}

impl Files {
    /// The answer of the route's directory of this number. `asked` is the target as the client sent it, for a redirect.
    pub async fn routed(&self, number: usize, head: &RequestHead, asked: &[u8]) -> FileResponse {
        let mount = self.shared.routed + number;
        let Some(decoded) = path::decode(head.path()) else { return FileResponse::not_found() };
        let Some(below) = decoded.strip_prefix(b"/") else { return FileResponse::not_found() };
        let is_directory = below.is_empty() || below.ends_with(b"/");
        let file: Cow<'_, [u8]> = if is_directory { [below, INDEX].concat().into() } else { below.into() };
        if !path::is_servable(&file) {
            return FileResponse::not_found();
        }
        if !matches!(head.method, Method::Get | Method::Head) {
            return reply::other_method(&head.method);
        }
        let response = self.serve(head, mount, &file).await.unwrap_or_else(FileResponse::not_found);
        if response.status == 404
            && !is_directory
            && self.is_there(mount, &[below, b"/", INDEX].concat()).await
        {
            return to_directory(asked);
        }
        response
    }

    async fn is_there(&self, mount: usize, path: &[u8]) -> bool {
        let ask = Ask { mount, path, accepted: Accepted::default() };
        match self.shared.choose(ask, Wait::Never) {
            Err(OpenError::WouldBlock) => self.choose_waiting(ask).await.is_ok(),
            chosen => chosen.is_ok(),
        }
    }
}

/// To the same address with a slash, so that the page's own links lead where they should.
fn to_directory(asked: &[u8]) -> FileResponse {
    let (path, query) = asked.split_at(memchr::memchr(b'?', asked).unwrap_or(asked.len()));
    let mut headers = Headers::with_capacity(4, 128 + asked.len());
    headers.push(b"Location", &one_slash([path, b"/", query].concat()));
    headers.push(b"Content-Length", b"0");
    FileResponse { status: 308, headers, body: Body::Empty }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Version;

    #[tokio::test]
    async fn a_directory_of_a_route() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(top.path().join("sub")).unwrap();
        for (name, text) in
            [("index.html", "top"), ("a b.txt", "file"), ("sub/index.html", "sub"), (".env", "secret")]
        {
            std::fs::write(top.path().join(name), text).unwrap();
        }
        let mut config = Config::default();
        let route = |files: Option<&std::path::Path>| ctl_config::Route {
            files: files.map(Into::into),
            ..ctl_config::Route::default()
        };
        config.route =
            vec![route(None), route(Some(std::path::Path::new("/nowhere"))), route(Some(top.path()))];
        let files = Files::new(&config, &AppReport::default()).unwrap();
        for (method, number, target, status, expected) in [
            ("GET", 1, "/", 200, "top"),
            ("GET", 1, "/a%20b.txt?x", 200, "file"),
            ("GET", 1, "/sub/", 200, "sub"),
            ("GET", 1, "/sub?x=1", 308, "/v1/sub/?x=1"),
            ("GET", 1, "/none", 404, ""),
            ("GET", 1, "/.env", 404, ""),
            ("GET", 1, "/../a", 404, ""),
            ("GET", 1, "/%2e%2e/a", 404, ""),
            ("GET", 1, "//a%20b.txt", 404, ""),
            ("GET", 1, "*", 404, ""),
            ("POST", 1, "/a%20b.txt", 405, ""),
            ("GET", 0, "/a%20b.txt", 404, ""),
            ("GET", 9, "/", 404, ""),
        ] {
            let head = RequestHead {
                method: Method::from_bytes(method.as_bytes()),
                target: target.into(),
                version: Version::Http11,
                headers: Headers::default(),
            };
            let asked = format!("/v1{target}");
            let response = files.routed(number, &head, asked.as_bytes()).await;
            assert_eq!(response.status, status, "{method} {target}");
            let seen = match (&response.body, status) {
                (Body::Bytes(bytes), 200) => String::from_utf8_lossy(bytes).into_owned(),
                (_, 308) => String::from_utf8_lossy(response.headers.get("location").unwrap()).into_owned(),
                _ => String::new(),
            };
            assert_eq!(seen, expected, "{method} {target}");
        }
    }
}
