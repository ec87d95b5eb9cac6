//! The files of each app: those of the site for everybody, those of a module for who comes by its routes.
//!
//! A module's static files are found where its requests are, and nowhere else: two apps with the same STATIC_URL have each their
//! own, and no module can put its files before a page of the site (docs/decisions/0023).

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

use ctl_admin::words::AppReport;
use ctl_config::{Config, Files as Settings};

use super::{Files, FilesError};

/// By number of the module; `None` as long as it has not been activated.
#[derive(Debug)]
pub struct AppFiles {
    all: RwLock<Box<[Option<Files>]>>,
}

impl AppFiles {
    /// None yet.
    pub fn new(config: &Config) -> Self {
        Self { all: RwLock::new(vec![None; config.module.len() + 1].into()) }
    }

    /// Of an app that serves from now on. Looks at its directories.
    pub fn activate(&self, config: &Config, module: u16, app: &AppReport) -> Result<(), FilesError> {
        let files = Files::new(&of_app(config, module), app)?;
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = all.get_mut(usize::from(module)) {
            *place = Some(files);
        }
        Ok(())
    }

    /// Those of a module; 0: of the site.
    pub fn of(&self, module: u16) -> Option<Files> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(usize::from(module)).cloned().flatten()
    }
}

/// The configuration as it holds for the files of an app. What names a root or a URL of the site is the site's alone, as are the
/// folders of routes; memory for small files is shared evenly.
fn of_app(config: &Config, module: u16) -> Cow<'_, Config> {
    if config.module.is_empty() {
        return Cow::Borrowed(config);
    }
    let mut own = config.clone();
    own.files.memory /= config.module.len() as u64 + 1;
    if let Some(module) = usize::from(module).checked_sub(1).and_then(|index| config.module.get(index)) {
        own.app.dir = module.dir.clone().unwrap_or(own.app.dir);
        own.app.mount = String::new();
        own.route = Vec::new();
        own.files = Settings {
            static_url: None,
            static_root: None,
            media_url: None,
            media_root: None,
            accel: Vec::new(),
            ..own.files
        };
    }
    Cow::Owned(own)
}

#[cfg(test)]
mod tests {
    use ctl_config::{Module, Route};

    use super::*;
    use crate::message::{Body, Headers, Method, RequestHead, Version};

    #[tokio::test]
    async fn each_app_has_its_own_files_under_the_same_url() {
        let top = tempfile::tempdir().unwrap();
        let api = Module { name: "api".into(), ..Module::default() };
        let mut config = Config { module: vec![api], ..Config::default() };
        config.files.static_root = Some(top.path().join("site"));
        config.route = vec![Route { files: Some(top.path().into()), ..Route::default() }];
        let apps = AppFiles::new(&config);
        for (module, name) in [(0, "site"), (1, "api")] {
            std::fs::create_dir(top.path().join(name)).unwrap();
            std::fs::write(top.path().join(name).join("a.css"), name).unwrap();
            assert!(apps.of(module).is_none());
            let app = AppReport {
                static_url: Some("/static/".into()),
                static_root: Some(top.path().join(name)),
                ..AppReport::default()
            };
            apps.activate(&config, module, &app).unwrap();
        }
        let head = RequestHead {
            method: Method::Get,
            target: "/static/a.css".into(),
            version: Version::Http11,
            headers: Headers::default(),
        };
        for (module, expected) in [(0, "site"), (1, "api")] {
            let file = apps.of(module).unwrap().answer(&head).await.unwrap();
            let Body::Bytes(bytes) = file.body else { panic!("{module}") };
            assert_eq!(bytes, expected.as_bytes());
        }
        assert!(apps.of(2).is_none());
        assert_eq!(apps.of(1).unwrap().routed(0, &head, b"/static/a.css").await.status, 404);
    }
}
