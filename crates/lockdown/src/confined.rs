//! The looser lock: a process that works below one directory, with threads of its own, and speaks to one server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, path_beneath_rules,
};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{LockdownError, READABLE, failed, filter, in_words};

/// The certificates that a machine trusts.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// From here on this process writes below `directory` alone, reads that, the system's libraries and certificates, connects
/// to the endpoint's TCP port and to none where there is no endpoint, listens nowhere, and starts no program. Must be called
/// before there are threads, and after every name is resolved. Returns what holds, in words: the port and the directory are
/// held by Landlock alone (Linux 5.13 for files, 6.7 for ports), and of a port it is not asked on which machine it is.
pub fn confine(directory: Option<&Path>, endpoint: Option<SocketAddr>) -> Result<String, LockdownError> {
    let landlock = landlock(directory, endpoint)?;
    no_core()?;
    let more = calls(directory.is_some(), endpoint.is_some())?;
    let filter = filter(more)?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|e| failed("seccomp", e))?;
    Ok(format!("{landlock}, no new privileges, seccomp"))
}

fn landlock(directory: Option<&Path>, endpoint: Option<SocketAddr>) -> Result<String, LockdownError> {
    let abi = ABI::V5;
    let wrong = |e: landlock::RulesetError| failed("landlock", e);
    let readable = READABLE.iter().chain(&CERTIFICATES).map(Path::new);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.create())
        .and_then(|r| r.add_rules(path_beneath_rules(readable, AccessFs::from_read(abi))))
        .map_err(wrong)?;
    if let Some(directory) = directory {
        let whole = path_beneath_rules([directory], AccessFs::from_all(abi));
        rules = rules.add_rules(whole).map_err(wrong)?;
    }
    if let Some(endpoint) = endpoint {
        let port = NetPort::new(endpoint.port(), AccessNet::ConnectTcp);
        rules = rules.add_rule(port).map_err(wrong)?;
    }
    let status = rules.restrict_self().map_err(wrong)?.ruleset;
    let words = in_words(&status);
    Ok(match status {
        RulesetStatus::FullyEnforced => words.to_owned(),
        RulesetStatus::PartiallyEnforced => format!("{words}: ports are free where it is older than Linux 6.7"),
        RulesetStatus::NotEnforced => format!("{words}: files and ports are free"),
    })
}

fn no_core() -> Result<(), LockdownError> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(failed("rlimit", std::io::Error::last_os_error()));
    }
    Ok(())
}

/// What threads and an event loop need.
const THREADS: [i64; 23] = [
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_tgkill,
    libc::SYS_membarrier,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_socketpair,
    libc::SYS_fcntl,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_sched_setscheduler,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_dup3,
];

/// What files need.
const FILES: [i64; 22] = [
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_flock,
    libc::SYS_getcwd,
];

/// The same, as older libraries call it.
#[cfg(target_arch = "x86_64")]
const OLDER: [i64; 12] = [
    libc::SYS_epoll_wait,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_readlink,
    libc::SYS_access,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [i64; 0] = [];

/// What a connection needs once it is there.
const SOCKETS: [i64; 10] = [
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
];

/// Without a directory files are read alone (certificates): Landlock says which.
fn calls(writes: bool, connects: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, LockdownError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut allow = |calls: &[i64]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    allow(&THREADS);
    if writes || connects {
        allow(&FILES);
        allow(&OLDER);
    }
    if connects {
        allow(&SOCKETS);
        let stream = |family: i32| -> Result<SeccompRule, LockdownError> {
            let family = is(0, SeccompCmpOp::Eq, family as u64)?;
            let kind = is(1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_STREAM as u64)?;
            SeccompRule::new(vec![family, kind]).map_err(|e| failed("seccomp", e))
        };
        rules.insert(libc::SYS_socket, vec![stream(libc::AF_INET)?, stream(libc::AF_INET6)?]);
    }
    let one = |argument: u8, value: u64| -> Result<Vec<SeccompRule>, LockdownError> {
        let condition = is(argument, SeccompCmpOp::Eq, value)?;
        let rule = SeccompRule::new(vec![condition]).map_err(|e| failed("seccomp", e))?;
        Ok(vec![rule])
    };
    // Names of threads, and sockets that do not wait.
    rules.insert(libc::SYS_prctl, one(0, libc::PR_SET_NAME as u64)?);
    rules.insert(libc::SYS_ioctl, one(1, libc::FIONBIO)?);
    Ok(rules)
}

fn is(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompCondition, LockdownError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value).map_err(|e| failed("seccomp", e))
}
