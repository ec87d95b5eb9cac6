//! Which URLs are files, and of which directories: from the configuration and what the app reports to mounts.
//!
//! | mount | roots | a file that is not there |
//! |---|---|---|
//! | STATIC_URL | STATIC_ROOT | 404; the app's, as long as STATIC_ROOT does not exist (WhiteNoise and its kin) |
//! | STATIC_URL with DEBUG | the finders' directories in order | the app's: `staticfiles` may know more finders |
//! | MEDIA_URL, by policy | MEDIA_ROOT | the app's: it may make thumbnails when they are asked for |
//! | `files.accel` | as configured | only the app may send there, see [`super::accel`] |
//!
//! A URL of another host (`https://cdn.example/static/`) is a CDN that fetches from us, at the same path. There, at `/`, and
//! in every other case where the path may be the app's as well, a miss is the app's.

use std::path::{Path, PathBuf};

use ctl_admin::words::AppReport;
use ctl_config::{Config, Media};

use super::path;
use super::root::Root;

/// What a mount is for: it decides some headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The project's own files, public by their nature.
    Static,
    /// What users have uploaded.
    Media,
    /// Only on the app's word.
    Accel,
}

/// Who answers for a file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// We, with 404.
    NotFound,
    /// The app.
    App,
}

/// A mount as planned: no file has been touched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Decoded; begins and ends with a slash.
    pub(super) prefix: Vec<u8>,
    /// Directories in order, each with what stands before its files' names below `prefix` ("" or "admin/").
    pub(super) roots: Vec<(Vec<u8>, PathBuf)>,
    pub(super) kind: Kind,
    pub(super) miss: Miss,
    /// Names with a content hash never change.
    pub(super) hashed: bool,
    /// Somebody is editing the files: look at them each time, and tell browsers to do so.
    pub(super) edited: bool,
}

/// A mount that serves.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) plan: Plan,
    /// In the order of `plan.roots`.
    pub(super) roots: Vec<Root>,
}

impl Mount {
    pub(super) fn new(plan: Plan) -> Self {
        let roots = plan.roots.iter().map(|(_, path)| Root::new(path.clone())).collect();
        Self { plan, roots }
    }

    /// The roots that may hold `path` (relative to the mount), each with its place and the path below it.
    pub(super) fn candidates<'a>(
        &'a self,
        path: &'a [u8],
    ) -> impl Iterator<Item = (usize, &'a Root, &'a [u8])> {
        self.plan.roots.iter().zip(&self.roots).enumerate().filter_map(move |(i, ((before, _), root))| {
            Some((i, root, path.strip_prefix(before.as_slice())?))
        })
    }
}

/// The mounts that clients may ask for, the longest prefix first.
pub(super) fn plan(config: &Config, app: &AppReport) -> Vec<Plan> {
    let dir = std::path::absolute(&config.app.dir).unwrap_or_else(|_| config.app.dir.clone());
    let place = Place { dir: &dir, script_name: config.app.mount.trim_end_matches('/') };
    let mut plans = Vec::new();
    if !config.files.enabled {
        return plans;
    }
    plan_static(&mut plans, config, app, place);
    plan_media(&mut plans, config, app, place);
    // Stable: of two with the same prefix, the one planned first wins.
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.prefix.len()));
    plans
}

#[derive(Clone, Copy)]
struct Place<'a> {
    dir: &'a Path,
    script_name: &'a str,
}

impl Place<'_> {
    /// Django's default for MEDIA_ROOT is "", which must not come to mean the project directory.
    fn root(self, path: Option<&PathBuf>) -> Option<PathBuf> {
        path.filter(|path| !path.as_os_str().is_empty()).map(|path| self.dir.join(path))
    }
}

fn plan_static(plans: &mut Vec<Plan>, config: &Config, app: &AppReport, place: Place<'_>) {
    let own_root = place.root(config.files.static_root.as_ref());
    let url = config.files.static_url.as_ref().or(app.static_url.as_ref());
    let finders = app.debug && own_root.is_none() && !app.static_finders.is_empty();
    let roots = if finders {
        app.static_finders
            .iter()
            .filter_map(|(prefix, path)| {
                let prefix = prefix.trim_matches('/');
                let before = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                Some((before.into_bytes(), place.root(Some(path))?))
            })
            .collect()
    } else {
        let root = own_root.or_else(|| place.root(app.static_root.as_ref()));
        root.map(|root| (Vec::new(), root)).into_iter().collect()
    };
    add(plans, url, place, |prefix| Plan {
        prefix,
        roots,
        kind: Kind::Static,
        miss: if app.debug { Miss::App } else { Miss::NotFound },
        hashed: app.static_hashed && !app.debug,
        edited: app.debug,
    });
}

fn plan_media(plans: &mut Vec<Plan>, config: &Config, app: &AppReport, place: Place<'_>) {
    let url = config.files.media_url.as_ref().or(app.media_url.as_ref());
    let allowed = match config.files.media {
        Media::Auto => app.debug && app.media_in_urlconf,
        Media::Public => true,
        Media::Off => false,
    };
    // Where it is not allowed the mount stays, without roots: MEDIA_URL below STATIC_URL is not static.
    let root = place.root(config.files.media_root.as_ref().or(app.media_root.as_ref())).filter(|_| allowed);
    add(plans, url, place, |prefix| Plan {
        prefix,
        roots: root.map(|root| (Vec::new(), root)).into_iter().collect(),
        kind: Kind::Media,
        miss: Miss::App,
        hashed: false,
        edited: app.debug,
    });
}

/// Adds a mount at the path of a URL; and, when the app is mounted below a prefix that the URL lacks, there as well.
/// (Django puts SCRIPT_NAME before a relative STATIC_URL, but knows it only while it answers a request.)
fn add(plans: &mut Vec<Plan>, url: Option<&String>, place: Place<'_>, make: impl FnOnce(Vec<u8>) -> Plan) {
    let Some((prefix, foreign)) = url.and_then(|url| prefix_of(url)) else { return };
    let mut plan = make(prefix);
    let root_of_app = plan.prefix == b"/" || plan.prefix == format!("{}/", place.script_name).into_bytes();
    if foreign || root_of_app {
        plan.miss = Miss::App;
    }
    if !place.script_name.is_empty() && !plan.prefix.starts_with(place.script_name.as_bytes()) {
        let prefix = [place.script_name.as_bytes(), &plan.prefix].concat();
        plans.push(Plan { prefix, miss: Miss::App, ..plan.clone() });
    }
    plans.push(plan);
}

/// The path of a URL as a prefix, and whether the URL names a host. `None`: it has no path that could be ours.
pub(super) fn prefix_of(url: &str) -> Option<(Vec<u8>, bool)> {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let after_scheme =
        url.find("//").filter(|&at| at == 0 || url[..at].ends_with(':')).map(|at| &url[at + 2..]);
    let (raw, foreign) = match after_scheme {
        Some(rest) => (rest.find('/').map_or("/", |slash| &rest[slash..]), true),
        None if url.is_empty() => return None,
        None => (url, false),
    };
    let raw = format!("/{}", raw.trim_start_matches('/'));
    let mut prefix = path::decode(raw.as_bytes())?.into_owned();
    if !prefix.ends_with(b"/") {
        prefix.push(b'/');
    }
    Some((prefix, foreign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(plans: &[Plan]) -> String {
        let one = |plan: &Plan| {
            let roots: Vec<_> = plan
                .roots
                .iter()
                .map(|(before, root)| format!("{}{}", String::from_utf8_lossy(before), root.display()))
                .collect();
            let miss = if plan.miss == Miss::App { "app" } else { "404" };
            format!("{} [{}] {miss}", String::from_utf8_lossy(&plan.prefix), roots.join(" "))
        };
        plans.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn report() -> AppReport {
        AppReport {
            static_url: Some("/static/".into()),
            static_root: Some("/srv/static".into()),
            static_finders: vec![(String::new(), "/src/a".into()), ("lib".into(), "/src/b".into())],
            media_url: Some("/media/".into()),
            media_root: Some("/srv/media".into()),
            ..AppReport::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Config, &mut AppReport), expected: &str) {
        let (mut config, mut app) = (Config::default(), report());
        change(&mut config, &mut app);
        assert_eq!(show(&plan(&config, &app)), expected);
    }

    #[test]
    fn plans() {
        check(|_, _| (), "/static/ [/srv/static] 404; /media/ [] app");
        check(|c, _| (c.files.enabled, c.files.media) = (false, Media::Public), "");
        check(|_, a| a.debug = true, "/static/ [/src/a lib//src/b] app; /media/ [] app");
        check(
            |_, a| (a.debug, a.media_in_urlconf) = (true, true),
            "/static/ [/src/a lib//src/b] app; /media/ [/srv/media] app",
        );
        check(|_, a| a.media_in_urlconf = true, "/static/ [/srv/static] 404; /media/ [] app");
        check(|c, _| c.files.media = Media::Public, "/static/ [/srv/static] 404; /media/ [/srv/media] app");
        check(
            |c, a| (c.files.media, a.debug, a.media_in_urlconf) = (Media::Off, true, true),
            "/static/ [/src/a lib//src/b] app; /media/ [] app",
        );
        check(
            |c, a| (c.files.media, a.media_root) = (Media::Public, Some("".into())),
            "/static/ [/srv/static] 404; /media/ [] app",
        );
        check(|_, a| a.static_root = None, "/static/ [] 404; /media/ [] app");
        check(|_, a| a.static_url = Some("/".into()), "/media/ [] app; / [/srv/static] app");
        check(
            |c, a| (c.files.static_root, a.debug) = (Some("/mine".into()), true),
            "/static/ [/mine] app; /media/ [] app",
        );
        check(
            |_, a| a.media_url = Some("/static/media/".into()),
            "/static/media/ [] app; /static/ [/srv/static] 404",
        );
    }

    #[test]
    fn urls() {
        check(
            |_, a| a.static_url = Some("https://cdn.example/assets/".into()),
            "/assets/ [/srv/static] app; /media/ [] app",
        );
        check(|_, a| a.static_url = Some("//cdn.example".into()), "/media/ [] app; / [/srv/static] app");
        check(|_, a| a.static_url = Some("assets".into()), "/assets/ [/srv/static] 404; /media/ [] app");
        check(|_, a| a.static_url = Some(String::new()), "/media/ [] app");
        check(
            |c, a| (c.app.mount, a.media_url) = ("/shop".into(), None),
            "/shop/static/ [/srv/static] app; /static/ [/srv/static] 404",
        );
        check(
            |c, a| {
                (c.app.mount, a.static_url, a.media_url) =
                    ("/shop".into(), Some("/shop/static/".into()), None);
            },
            "/shop/static/ [/srv/static] 404",
        );
        assert_eq!(prefix_of("/a%20b/"), Some((b"/a b/".to_vec(), false)));
        assert_eq!(prefix_of("/a//b/"), Some((b"/a//b/".to_vec(), false)));
    }
}
