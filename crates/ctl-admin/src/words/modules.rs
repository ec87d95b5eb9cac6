//! What is said of the apps of an instance.

use serde::{Deserialize, Serialize};

use super::AppReport;

/// An app in [`Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ModuleStatus {
    /// Its name; "default" for the app of `[app]`.
    pub name: String,
    /// The generation of its code that serves; 0 before the first.
    pub generation: u32,
    /// See [`AppReport::app`]; empty before the first.
    pub app: String,
    /// The template process's id, while there is one.
    pub template_pid: Option<u32>,
}

/// A generation of an app that serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activated {
    /// 0 is the app of `[app]`, N the Nth `[[module]]`.
    pub module: u16,
    /// The generation.
    pub generation: u32,
    /// What its app reports.
    pub app: Box<AppReport>,
}
