//! `workers.user` and `workers.group`: from names to numbers, before anything is started.

use std::ffi::{CString, OsString};

use ctl_config::Workers;
use nix::unistd::{Group, User, getgrouplist};

use crate::inherit::Identity;
use crate::plan::Problem;

/// Whom the workers run as, and the environment that goes with it.
#[derive(Debug)]
pub(crate) struct WorkerUser {
    pub(crate) identity: Identity,
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// `None`: as ourselves.
pub(crate) fn resolve(workers: &Workers) -> Result<Option<WorkerUser>, Problem> {
    let (user, group) = (workers.user.as_deref(), workers.group.as_deref());
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let own = rustix::process::geteuid();
    let user = match user {
        Some(name) => find("user", name, User::from_name(name))?,
        None => User::from_uid(nix::unistd::Uid::from_raw(own.as_raw())).ok().flatten().ok_or_else(|| {
            Problem::new("workers.group needs workers.user").detail("this process's own user has no name")
        })?,
    };
    let gid = match group {
        Some(name) => find("group", name, Group::from_name(name))?.gid,
        None => user.gid,
    };
    let already = own.as_raw() == user.uid.as_raw() && rustix::process::getegid().as_raw() == gid.as_raw();
    if already {
        return Ok(None);
    }
    if !own.is_root() {
        return Err(Problem::new(format!("workers cannot run as {}", user.name))
            .detail("only root can start processes as another user or group")
            .hint("start quintet as root (supervisor and gateway stay root), or remove workers.user"));
    }
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let groups = getgrouplist(&name, gid).map_err(|error| {
        Problem::new(format!("the groups of {} are not known", user.name)).detail(error.to_string())
    })?;
    let env = [("HOME", user.dir.clone().into_os_string()), ("USER", OsString::from(&user.name))];
    let env = env.into_iter().chain([("LOGNAME", OsString::from(&user.name))]);
    Ok(Some(WorkerUser {
        identity: Identity {
            uid: user.uid.as_raw(),
            gid: gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        },
        env: env.map(|(name, value)| (OsString::from(name), value)).collect(),
    }))
}

fn find<T>(what: &str, name: &str, found: nix::Result<Option<T>>) -> Result<T, Problem> {
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Problem::new(format!(
            "workers.{what}: there is no {what} \"{name}\" on this machine"
        ))
        .hint(format!("`getent {} {name}` would show it", if what == "user" { "passwd" } else { "group" }))),
        Err(error) => {
            Err(Problem::new(format!("workers.{what}: \"{name}\" cannot be looked up"))
                .detail(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(user: Option<&str>, group: Option<&str>) -> Workers {
        Workers { user: user.map(str::to_owned), group: group.map(str::to_owned), ..Workers::default() }
    }

    #[test]
    fn nobody_special_means_ourselves() {
        assert!(resolve(&workers(None, None)).unwrap().is_none());
    }

    #[test]
    fn a_name_that_is_unknown_is_said() {
        let problem = resolve(&workers(Some("no-such-user"), None)).unwrap_err();
        assert!(problem.message.contains("no user \"no-such-user\""), "{problem:?}");
        let problem = resolve(&workers(Some("root"), Some("no-such-group"))).unwrap_err();
        assert!(problem.message.contains("no group \"no-such-group\""), "{problem:?}");
    }

    #[test]
    fn another_user_is_found_with_home_and_groups_or_refused() {
        let found = resolve(&workers(Some("nobody"), None));
        if rustix::process::geteuid().is_root() {
            let user = found.unwrap().unwrap();
            assert_ne!(user.identity.uid, 0);
            assert!(user.identity.groups.contains(&user.identity.gid), "{user:?}");
            assert!(user.env.iter().any(|(name, value)| name == "USER" && value == "nobody"), "{user:?}");
        } else {
            assert!(found.unwrap_err().hint.contains("root"));
        }
    }
}
