//! What has changed between two configurations and takes effect at a start only.

use crate::define::{Reload, Setting};
use crate::settings::{Config, SECTIONS, TABLES};

/// More names than these say nothing to anybody.
const NAMED_MAX: usize = 8;

/// The settings that differ and that a reload does not take over: `server.bind`, `[[route]]`; the last one may say how many others there are.
pub fn waiting(old: &Config, new: &Config) -> Vec<String> {
    let differs = |setting: &Setting, index| {
        (setting.access.get_json)(old, index) != (setting.access.get_json)(new, index)
    };
    let restart = |setting: &&Setting| setting.reload == Reload::Restart;
    let settings = SECTIONS.iter().flat_map(|section| section.settings).filter(restart);
    let mut names: Vec<String> =
        settings.filter(|setting| differs(setting, 0)).map(|setting| setting.key.to_owned()).collect();
    for table in TABLES {
        let count = table.count(old);
        let changed = || (0..count).any(|at| table.keys.iter().filter(restart).any(|key| differs(key, at)));
        if count != table.count(new) || changed() {
            names.push(format!("[[{}]]", table.name));
        }
    }
    if names.len() > NAMED_MAX {
        let others = names.split_off(NAMED_MAX).len();
        names.push(format!("{others} more"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::loaded;

    fn between(old: &str, new: &str) -> Vec<String> {
        waiting(&loaded(old).config, &loaded(new).config)
    }

    #[test]
    fn what_a_reload_takes_over_is_not_named() {
        let old = "[server]\nbind = [\"127.0.0.1:1\"]\n[workers]\ncount = 1";
        assert_eq!(between(old, old), [""; 0]);
        assert_eq!(between(old, &old.replace("count = 1", "count = 2")), [""; 0]);
        assert_eq!(between(old, &old.replace("0.1:1", "0.1:2")), ["server.bind"]);
    }

    #[test]
    fn tables_are_named_once() {
        let old = "[[route]]\npath = \"/a/*\"\nrespond = \"a\"\n";
        assert_eq!(between(old, &old.replace("/a/", "/b/")), ["[[route]]"]);
        assert_eq!(between(old, &format!("{old}{}", old.replace("/a/", "/b/"))), ["[[route]]"]);
        assert_eq!(between(old, ""), ["[[route]]"]);
    }

    #[test]
    fn not_everything_is_named() {
        let limits = "[timeouts]\nheader = \"1s\"\nbody = \"1s\"\nqueue = \"1s\"\napp = \"1s\"\nkeep_alive = \"1s\"\n\
                      write = \"1s\"\ntls_handshake = \"1s\"\n[limits]\nbody_max = 1\nline_max = 1000\n";
        let names = between("", limits);
        assert_eq!((names.len(), names[NAMED_MAX].as_str()), (NAMED_MAX + 1, "1 more"));
    }
}
