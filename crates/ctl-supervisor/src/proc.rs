//! What Linux tells about processes in `/proc`. Elsewhere (or where `/proc` is not mounted) each answer is "unknown".

use std::fs;

/// Proportional memory (PSS) of a process in MiB: pages that several workers share count once.
pub(crate) fn memory_mib(pid: u32) -> Option<u64> {
    memory_bytes(pid).map(|bytes| bytes.div_ceil(1 << 20))
}

/// The same in bytes.
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    pss_kib(&rollup).map(|kib| kib * 1024)
}

fn pss_kib(rollup: &str) -> Option<u64> {
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Every process whose parent is `parent`.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    processes().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PPID …`, where NAME may hold anything, parentheses and spaces too.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Who listens on this TCP port: process id and name. `None` when it is another user's and we may not see it.
pub(crate) fn who_listens(port: u16) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    };
    let pid = processes().find(holds)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

/// Columns of `/proc/net/tcp`: number, local address and port in hexadecimal, remote, state (0A: listening), …,
/// the tenth is the inode.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let local = u16::from_str_radix(columns.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        let listens = *columns.get(3)? == "0A";
        (local == port && listens).then(|| columns.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent_in("42 (python3) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent_in("42 (a) b (c) R 3) S 7 42"), Some(7));
        assert_eq!(parent_in("nonsense"), None);
    }

    #[test]
    fn pss_is_found() {
        assert_eq!(pss_kib("Rss:  10 kB\nPss:    2345 kB\nPss_Dirty: 1 kB\n"), Some(2345));
        assert_eq!(pss_kib("Rss: 10 kB\n"), None);
    }

    #[test]
    fn only_listeners_of_the_port_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
               1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
               2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
        assert_eq!(listening_inodes(table, 8000), [4711]);
        assert_eq!(listening_inodes(table, 8002), [0; 0]);
        assert_eq!(listening_inodes("garbage\nmore garbage\n", 8000), [0; 0]);
    }

    #[test]
    fn this_process_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (pid, _) = who_listens(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(memory_mib(pid).is_none_or(|mib| mib > 0));
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        assert!(children_of(pid).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
