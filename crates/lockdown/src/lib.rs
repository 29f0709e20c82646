//! The locks that a worker process closes before it reads the first hostile byte (invariant 7). After them the process can
//! compute, read its standard input, write its standard output and error, and end; it can open nothing, connect to nothing,
//! and start nothing, not even a thread. It knows nothing of what the worker does.
//!
//! The order matters. Landlock covers only the calling thread and its children, so it comes first, with read access to the
//! system's libraries and what else the worker loads; then everything is loaded; then privileges are dropped and seccomp
//! closes the rest. A locked process cannot even exit in the ordinary way: it leaves by `_exit`.
//!
//! A worker that must speak to the server and keep state is [`confine`]d instead: to one directory and one port.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

mod confined;

pub use confined::confine;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// User and group that own nothing on Debian: nobody, nogroup.
const NOBODY: u32 = 65_534;

/// What the dynamic loader and libraries that look at the processor read.
const READABLE: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/proc/self",
    "/sys/devices/system/cpu",
];

/// A lock did not close; in words for the log.
#[derive(Debug, thiserror::Error)]
#[error("lockdown: {0}")]
pub struct LockdownError(String);

fn failed(what: &str, error: impl std::fmt::Display) -> LockdownError {
    LockdownError(format!("{what}: {error}"))
}

/// Landlock: these files and the system's libraries may be read, and nothing else. Returns what holds, in words: a kernel
/// without Landlock (before 5.13, or switched off) leaves that to seccomp, which forbids every `open`.
pub fn restrict_files(readable: &[&Path]) -> Result<&'static str, LockdownError> {
    let abi = ABI::V5;
    let readable = READABLE.iter().map(Path::new).chain(readable.iter().copied());
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.create())
        .and_then(|r| r.add_rules(path_beneath_rules(readable, AccessFs::from_read(abi))))
        .and_then(|r| r.restrict_self())
        .map_err(|e| failed("landlock", e))?;
    Ok(in_words(&status.ruleset))
}

fn in_words(status: &RulesetStatus) -> &'static str {
    match status {
        RulesetStatus::FullyEnforced => "landlock",
        RulesetStatus::PartiallyEnforced => "landlock (older kernel, in part)",
        RulesetStatus::NotEnforced => "no landlock in this kernel",
    }
}

/// Limits, privileges and system calls; `memory_bytes_max` is for data. Returns what holds, in words.
pub fn close(memory_bytes_max: u64) -> Result<String, LockdownError> {
    limit_resources(memory_bytes_max)?;
    let user = drop_privileges()?;
    // SAFETY: plain prctl calls without pointers. The worker dies with its parent; it must not be traced or dumped.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
    }
    let filter = filter(BTreeMap::new())?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|e| failed("seccomp", e))?;
    Ok(format!("{user}, no new privileges, seccomp"))
}

fn limit_resources(memory_bytes_max: u64) -> Result<(), LockdownError> {
    for (resource, limit) in [
        (libc::RLIMIT_DATA, memory_bytes_max),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NOFILE, 16),
        (libc::RLIMIT_NPROC, 0),
    ] {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: the structure lives through the call.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(failed("rlimit", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Root becomes nobody; another user stays what it is.
fn drop_privileges() -> Result<&'static str, LockdownError> {
    // SAFETY: calls without pointers, but for an empty list of groups.
    unsafe {
        if libc::geteuid() != 0 {
            return Ok("unprivileged user");
        }
        let dropped = libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(NOBODY, NOBODY, NOBODY) == 0
            && libc::setresuid(NOBODY, NOBODY, NOBODY) == 0;
        if !dropped {
            return Err(failed("user nobody", std::io::Error::last_os_error()));
        }
    }
    Ok("user nobody")
}

/// What computing and the three standard streams need, and `more`. Anything else is refused with EPERM, which libraries
/// survive.
fn filter(more: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, LockdownError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_ppoll,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_poll, Vec::new());
    // Memory, but none that can be run: the third argument must lack PROT_EXEC.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = SeccompCondition::new(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64),
            0,
        )
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|e| failed("seccomp", e))?;
        rules.insert(call, vec![not_executable]);
    }
    rules.extend(more);
    let arch = std::env::consts::ARCH.try_into().map_err(|e| failed("seccomp", e))?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(|e| failed("seccomp", e))
}

/// Ends the process without running what an ordinary exit runs.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}
