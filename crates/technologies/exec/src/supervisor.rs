//! The supervisor: a process between Landfall and a plug-in, which leaves no process behind.
//!
//! Landfall starts its own program again as the supervisor of each run. The supervisor is the *subreaper* of the
//! plug-in: a process whose parent has ended becomes its child, also one that left its process group or its session.
//! So it finds all of them, and ends them when the plug-in ends, when Landfall asks for it, and when Landfall itself
//! is gone or frozen:
//!
//! - Its standard input is a socket to Landfall. The end of the stream means that Landfall has ended, also by
//!   SIGKILL.
//! - Landfall sends a byte each second. When none arrives for [`Start::silence_ms`], Landfall is frozen, and may have
//!   lost its lease to another process.
//! - It holds a lock on the component, an abstract socket that the kernel frees with the process. So a plug-in of a
//!   component does not start while another one of the same component and target runs on the machine.
//!
//! The process has one thread and does nothing else. It reads no output of the plug-in, whose standard output and
//! error lead to Landfall.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, wait,
};
use serde::{Deserialize, Serialize};

/// The argument with which a program starts as a supervisor.
pub const ARGUMENT: &str = "supervise-plugin";

/// A heartbeat of Landfall.
pub(crate) const HEARTBEAT: u8 = b'.';
/// The request to end the plug-in: SIGTERM, and SIGKILL after the grace period.
pub(crate) const STOP: u8 = b't';

/// How long a plug-in may take to end after SIGTERM when Landfall is gone.
const ORPHANED: Duration = Duration::from_secs(2);
/// How long the supervisor tries to end processes that do not die, because they wait for a device or belong to another
/// user.
const KILLING: Duration = Duration::from_secs(10);
/// How often the supervisor looks, where the kernel cannot wake it up.
const TICK: Duration = Duration::from_millis(20);

/// The first line from Landfall. The request for the plug-in follows.
#[derive(Serialize, Deserialize)]
pub(crate) struct Start {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The complete environment of the plug-in. It may have secrets, so this type has no `Debug`.
    pub(crate) env: Vec<(String, String)>,
    /// The working directory.
    pub(crate) directory: String,
    /// The name of the lock.
    pub(crate) lock: String,
    /// The longest wait for the lock, in milliseconds.
    pub(crate) wait_ms: u64,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub(crate) grace_ms: u64,
    /// The longest time without a heartbeat, in milliseconds.
    pub(crate) silence_ms: u64,
    /// The length of the request in bytes.
    pub(crate) input: u64,
}

/// A line to Landfall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// Another supervisor holds the lock. Nothing was started.
    Busy,
    /// The plug-in could not be started.
    Failed {
        /// The error of the operating system.
        error: String,
    },
    /// The plug-in runs.
    Started {
        /// Its process, and its process group.
        pid: i32,
    },
    /// Its main process has ended.
    Exited {
        /// The exit code, if it was not killed.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// All of its processes have ended.
    Ended {
        /// How many processes were left and killed.
        killed: usize,
        /// How many of them had left the process group of the plug-in.
        escaped: usize,
        /// Processes that could not be killed.
        left: Vec<i32>,
    },
}

/// Runs the process as a supervisor until its plug-in has ended. Call it first in `main`, before any thread starts,
/// if the first argument is [`ARGUMENT`].
pub fn supervise() -> ExitCode {
    let ended = Supervisor::new().and_then(|mut supervisor| supervisor.run());
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // Landfall reads the end of the stream, and nobody else asks.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Supervisor {
    /// Requests and heartbeats in, events out.
    landfall: UnixStream,
}

/// Why the plug-in is to be ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Heartbeat,
    Stop,
    Gone,
}

impl Supervisor {
    fn new() -> io::Result<Self> {
        let landfall = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Without it, processes that leave their parent would not be found.
        set_child_subreaper(Some(getpid()))?;
        Ok(Self { landfall })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(self.landfall.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let start: Start = serde_json::from_str(&line)?;
        let mut input = fs::File::from(memfd_create("landfall-request", MemfdFlags::CLOEXEC)?);
        let copied = io::copy(&mut reader.by_ref().take(start.input), &mut input)?;
        if copied != start.input {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.rewind()?;
        // What else was read are heartbeats, or a request to stop.
        let is_stopped = reader.buffer().contains(&STOP);
        let Some(_lock) = self.lock(&start, is_stopped)? else { return self.tell(&Event::Busy) };
        let child = Command::new(start.command.first().map_or("", String::as_str))
            .args(start.command.iter().skip(1))
            .env_clear()
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&start.directory)
            .stdin(Stdio::from(input))
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn();
        let plugin = child.map(|child| i32::try_from(child.id()).ok().and_then(Pid::from_raw));
        match plugin {
            Err(error) => self.tell(&Event::Failed { error: error.to_string() }),
            Ok(None) => Err(io::ErrorKind::InvalidData.into()),
            Ok(Some(plugin)) => self.watch(plugin, &start),
        }
    }

    /// Takes the lock; `None` if another supervisor keeps it, or Landfall stops or ends.
    fn lock(&mut self, start: &Start, is_stopped: bool) -> io::Result<Option<UnixListener>> {
        let address = SocketAddr::from_abstract_name(&start.lock)?;
        let end = Instant::now() + Duration::from_millis(start.wait_ms);
        if is_stopped {
            return Ok(None);
        }
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(lock) => return Ok(Some(lock)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
            let heard = self.hear(None, TICK)?;
            if matches!(heard, Heard::Stop | Heard::Gone) || Instant::now() >= end {
                return Ok(None);
            }
        }
    }

    /// Waits for the end of the plug-in, and ends it when Landfall asks or is gone.
    fn watch(&mut self, plugin: Pid, start: &Start) -> io::Result<()> {
        // Nobody may listen any more; the plug-in is ended all the same.
        let _ = self.tell(&Event::Started { pid: plugin.as_raw_pid() });
        let exit = pidfd_open(plugin, PidfdFlags::empty()).ok();
        let silence = Duration::from_millis(start.silence_ms);
        let mut heard_at = Instant::now();
        let mut kill_at: Option<Instant> = None;
        let status = loop {
            if let Some(status) = reap(plugin)? {
                break status;
            }
            let now = Instant::now();
            if kill_at.is_some_and(|at| now >= at) {
                // Its children are ended below. It is not reaped yet, so the number is its own.
                kill_process(plugin, Signal::KILL)?;
                wait_for(exit.as_ref(), TICK)?;
                continue;
            }
            let until = kill_at.unwrap_or(heard_at + silence).saturating_duration_since(now);
            let wait = if exit.is_some() { until } else { until.min(TICK) };
            let heard = match kill_at {
                // The stream may be at its end, which would wake up this loop all the time.
                Some(_) => {
                    wait_for(exit.as_ref(), wait)?;
                    continue;
                }
                None => self.hear(exit.as_ref(), wait)?,
            };
            let grace = match heard {
                Heard::Heartbeat => {
                    heard_at = Instant::now();
                    continue;
                }
                Heard::Stop => Duration::from_millis(start.grace_ms),
                Heard::Gone => ORPHANED.min(Duration::from_millis(start.grace_ms)),
                Heard::Nothing if heard_at.elapsed() >= silence => Duration::ZERO,
                Heard::Nothing => continue,
            };
            kill_at = Some(Instant::now() + grace);
            // It may have ended in the meantime.
            let _ = kill_process_group(plugin, Signal::TERM);
        };
        let _ = self.tell(&Event::Exited { code: status.exit_status(), signal: status.terminating_signal() });
        let (killed, escaped, left) = end_descendants(plugin);
        self.tell(&Event::Ended { killed, escaped, left })
    }

    /// What Landfall sends within that time, or nothing when the plug-in ends first.
    fn hear(&mut self, exit: Option<&OwnedFd>, wait: Duration) -> io::Result<Heard> {
        let mut fds = vec![PollFd::new(&self.landfall, PollFlags::IN)];
        fds.extend(exit.map(|exit| PollFd::new(exit, PollFlags::IN)));
        ready(&mut fds, wait)?;
        if fds.first().is_none_or(|fd| fd.revents().is_empty()) {
            return Ok(Heard::Nothing);
        }
        let mut bytes = [0; 64];
        match self.landfall.read(&mut bytes) {
            Ok(0) => Ok(Heard::Gone),
            Ok(read) if bytes.get(..read).is_some_and(|bytes| bytes.contains(&STOP)) => Ok(Heard::Stop),
            Ok(_) => Ok(Heard::Heartbeat),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::Nothing),
            // A reset connection.
            Err(_) => Ok(Heard::Gone),
        }
    }

    fn tell(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.landfall.write_all(&line)
    }
}

/// Waits until the process ends, or for that time.
fn wait_for(exit: Option<&OwnedFd>, wait: Duration) -> io::Result<()> {
    match exit {
        Some(exit) => ready(&mut [PollFd::new(exit, PollFlags::IN)], wait),
        None => {
            thread::sleep(wait);
            Ok(())
        }
    }
}

fn ready(fds: &mut [PollFd<'_>], wait: Duration) -> io::Result<()> {
    let seconds = wait.as_secs().try_into().unwrap_or(i64::MAX);
    let wait = Timespec { tv_sec: seconds, tv_nsec: wait.subsec_nanos().into() };
    match poll(fds, Some(&wait)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reaps the children that have ended, and returns the status of the plug-in if it is among them.
fn reap(plugin: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == plugin => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills what the plug-in has left. Returns how many processes there were, how many of them outside of its process
/// group, and those that do not die.
fn end_descendants(plugin: Pid) -> (usize, usize, Vec<i32>) {
    let end = Instant::now() + KILLING;
    let mut killed = BTreeSet::new();
    let mut escaped = BTreeSet::new();
    loop {
        let has_children = loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        // Without a child there is no descendant: an orphan becomes a child of the subreaper at once.
        let left = if has_children { descendants() } else { Vec::new() };
        if left.is_empty() || Instant::now() >= end {
            return (killed.len(), escaped.len(), left);
        }
        for pid in left {
            killed.insert(pid);
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if field(&stat, GROUP).is_some_and(|group| group != plugin.as_raw_pid()) {
                escaped.insert(pid);
            }
            if let Some(pid) = Pid::from_raw(pid) {
                // One that belongs to another user is reported at the end.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The processes below this one.
fn descendants() -> Vec<i32> {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, PARENT)?)))
        .collect();
    let mut found = vec![getpid().as_raw_pid()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Fields of `/proc/PID/stat`, counted behind the name.
const PARENT: usize = 1;
const GROUP: usize = 2;

/// A field of `/proc/PID/stat` behind the name, which may have any character.
fn field(stat: &str, number: usize) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_behind_any_name() {
        assert_eq!(field("12 (a) S 7 12 12 0 -1", PARENT), Some(7));
        assert_eq!(field("12 (a) S 9 (b)) R 8 13", PARENT), Some(8));
        assert_eq!(field("12 (a) S 9 (b)) R 8 13", GROUP), Some(13));
        assert_eq!(field("12 (a", PARENT), None);
    }
}
