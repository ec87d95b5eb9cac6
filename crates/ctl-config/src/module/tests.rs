//! `[[module]]` from the file to the structs, and what can be wrong with it.

use crate::testing::{loaded, wrong};

#[test]
fn pools_of_all_apps_are_one_list() {
    let config = loaded(
        r#"
[[module]]
name = "api"
dir = "api"
callable = "main:app"
interface = "asgi"
environment = ["A=b=c"]
max = 4

[[worker_pool]]
name = "uploads"
module = "api"
concurrency = 2

[[worker_pool]]
match = "/reports/*"

[[module]]
name = "old"
settings = "old.settings"
python = "old/.venv"

[[route]]
path = "/api/*"
app = "api"

[[route]]
path = "/old/*"
app = "old"

[[route]]
path = "/uploads/*"
app = "uploads"
"#,
    )
    .config;
    let names: Vec<_> = config.pools().map(|pool| pool.name.clone()).collect();
    assert_eq!(names, ["uploads", "reports", "api", "old"]);
    assert_eq!(config.modules_of_pools(), [0, 1, 0, 1, 2]);
    assert_eq!(config.module_names().collect::<Vec<_>>(), ["default", "api", "old"]);
    let numbers = ["default", "uploads", "api", "old", "none"].map(|name| config.pool_number(name));
    assert_eq!(numbers, [Some(0), Some(1), Some(3), Some(4), None]);
    let api = config.pools().nth(2).map(|pool| (pool.min, pool.most(), pool.concurrency));
    assert_eq!(api, Some((1, 4, None)));
    assert_eq!(config.module[0].dir.as_deref(), Some(std::path::Path::new("/srv/shop/api")));
}

#[test]
fn without_modules_there_is_one_app() {
    let config = loaded("").config;
    assert_eq!((config.pools().count(), config.modules_of_pools()), (0, vec![0]));
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(wrong(
        r#"
[[module]]
name = "default"
callable = "main.py"
min = 0
environment = ["A", "1A=b", "QUINTET_WORKER=x", "DJANGO_SETTINGS_MODULE=a.b"]
app = "main:app"
mount = "/api"
preload = false

[[module]]
dir = "old"
"#
    ));
}

#[test]
fn what_does_not_go_together() {
    insta::assert_snapshot!(wrong(
        r#"
[[module]]
name = "api"
min = 3
max = 2

[[module]]
name = "api"
dir = "api"

[[module]]
name = "reports"
dir = "reports"

[[module]]
name = "idle"
dir = "idle"

[[worker_pool]]
match = "/reports/*"
module = "apii"

[[worker_pool]]
name = "unused"
module = "default"

[[route]]
path = "/api/*"
app = "api"

[[route]]
path = "/x/*"
app = "nobody"
"#
    ));
}
