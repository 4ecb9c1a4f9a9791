//! One run of a plug-in under its supervisor.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use landfall_adapter::blocking;
use landfall_adapter::error::{Error, Result};
use landfall_adapter::{Context, Journal, Level, Running};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::lines::{Lines, Piece};
use crate::protocol::{Line, LogLevel, Outcome, ProgressPart, Verb};
use crate::supervisor::{ARGUMENT, Event, HEARTBEAT, STOP, Start};
use crate::verdict::{Answer, Cut, CutKind, Exit, Said, verdict};

/// How often Landfall tells the supervisor that it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long output is read after all processes have ended. It ends at once, unless a process outside of the
/// supervisor's reach has got the pipe.
const REST: Duration = Duration::from_secs(1);
/// How long a supervisor may take beyond what it was told, before Landfall takes it for gone.
const SLACK: Duration = Duration::from_secs(30);
/// The shortest time between two lines about progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// The longest line on standard error; the rest is cut off.
const LONGEST_ERROR: usize = 2000;

/// A program and the limits of its runs.
#[derive(Clone)]
pub(crate) struct Program {
    /// Its name in messages.
    pub(crate) name: String,
    /// The absolute path, and arguments before the verb.
    pub(crate) command: Vec<String>,
    /// The complete environment. It may have secrets.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    /// The program that supervises.
    pub(crate) supervisor: PathBuf,
    /// The longest time of a run.
    pub(crate) timeout: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// The longest time without a sign of Landfall.
    pub(crate) silence: Duration,
    /// The longest line on standard output, in bytes.
    pub(crate) max_line: usize,
    /// The most output, in bytes.
    pub(crate) max_output: u64,
    /// The most lines of standard output and standard error in the log of the operation.
    pub(crate) max_log_lines: u64,
    /// Collects what was seen of each run, for the tools of authors.
    pub(crate) observed: Option<Arc<Mutex<Vec<Observed>>>>,
}

/// What was seen of one run.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) verb: Verb,
    pub(crate) said: Said,
    pub(crate) exit: Exit,
    /// Why Landfall ended it, if it did.
    pub(crate) cut: Option<CutKind>,
    /// Processes that it left in its process group.
    pub(crate) left: usize,
    /// Processes that it left outside of its process group.
    pub(crate) escaped: usize,
}

/// Keeps checkpoints.
#[async_trait::async_trait]
pub(crate) trait Checkpoints: Send + 'static {
    /// Stores the state durably.
    async fn keep(&mut self, state: Value, running: &Running) -> Result<()>;
}

/// For verbs that have no checkpoints: `state` lines are ignored.
pub(crate) struct NoCheckpoints;

#[async_trait::async_trait]
impl Checkpoints for NoCheckpoints {
    async fn keep(&mut self, _: Value, _: &Running) -> Result<()> {
        Ok(())
    }
}

impl Program {
    /// The time at which a run that begins now is ended.
    pub(crate) fn end(&self, context: &Context) -> Instant {
        let own = Instant::now() + self.timeout;
        context.deadline().map_or(own, |deadline| deadline.min(own))
    }

    /// Runs a verb with a request, and returns what came of it. If the caller stops waiting, the run is stopped; the
    /// operation that it belongs to does not end before it.
    pub(crate) async fn run<C: Checkpoints>(
        self: &Arc<Self>,
        verb: Verb,
        lock: String,
        request: Vec<u8>,
        context: &Context,
        checkpoints: C,
    ) -> Result<(Outcome, C)> {
        context.check_cancelled()?;
        let cancel = context.cancel.child_token();
        let _unwanted = cancel.clone().drop_guard();
        let run = Run {
            program: Arc::clone(self),
            verb,
            end: self.end(context),
            cancel,
            running: Running::new(context.clone()),
            checkpoints,
            said: Said::default(),
            exit: None,
            cut: None,
            log_lines: 0,
            unlogged: 0,
            told: None,
            left: 0,
            escaped: 0,
        };
        blocking::finish(run.conduct(lock, request)).await
    }
}

struct Run<C> {
    program: Arc<Program>,
    verb: Verb,
    end: Instant,
    cancel: CancellationToken,
    running: Running,
    checkpoints: C,
    said: Said,
    exit: Option<Exit>,
    cut: Option<Cut>,
    log_lines: u64,
    unlogged: u64,
    /// When progress was logged last.
    told: Option<Instant>,
    left: usize,
    escaped: usize,
}

impl<C: Checkpoints> Run<C> {
    async fn conduct(mut self, lock: String, request: Vec<u8>) -> Result<(Outcome, C)> {
        let started = start(&self.program.supervisor);
        let (events, to_supervisor, stdout, stderr, mut supervisor) = started.map_err(|error| {
            Error::retryable(format!("plug-in `{}` cannot be started: {error}", self.program.name))
        })?;
        let (stop, stops) = mpsc::channel(1);
        let header = self.header(lock, request.len())?;
        let _writer = AbortOnDropHandle::new(tokio::spawn(write(to_supervisor, header, request, stops)));
        self.listen(events, stop, stdout, stderr).await;
        // It has ended, or it is gone.
        let ended = timeout(SLACK, supervisor.wait()).await;
        if ended.is_err() {
            let _ = supervisor.start_kill();
        }
        self.report();
        let exit = self.exit.take().unwrap_or(Exit::Unknown);
        if let Some(observed) = &self.program.observed {
            let (said, cut) = (self.said.clone(), self.cut.as_ref().map(Cut::kind));
            let one = Observed {
                verb: self.verb,
                said,
                exit: exit.clone(),
                cut,
                left: self.left,
                escaped: self.escaped,
            };
            observed.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        let outcome = verdict(&self.program.name, self.verb, self.said, exit, self.cut)?;
        Ok((outcome, self.checkpoints))
    }

    fn header(&self, lock: String, input: usize) -> Result<Vec<u8>> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let program = &self.program;
        let mut command = program.command.clone();
        command.push(self.verb.name().to_owned());
        let start = Start {
            command,
            env: program.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            directory: program.directory.to_string_lossy().into_owned(),
            lock,
            wait_ms: milliseconds(self.end.saturating_duration_since(Instant::now())),
            grace_ms: milliseconds(program.grace),
            silence_ms: milliseconds(program.silence),
            input: input as u64,
        };
        let mut line = serde_json::to_vec(&start)
            .map_err(|error| Error::permanent("a run of a plug-in cannot be described").because(error))?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads everything until all processes have ended.
    async fn listen(
        &mut self,
        events: OwnedReadHalf,
        stop: mpsc::Sender<()>,
        stdout: ChildStdout,
        stderr: ChildStderr,
    ) {
        let mut events = BufReader::new(events).lines();
        let mut stdout = Some(Lines::new(stdout, self.program.max_line));
        let mut stderr = Some(Lines::new(stderr, LONGEST_ERROR));
        let mut bytes = 0;
        // After all processes have ended, or when the supervisor is overdue.
        let mut over: Option<Instant> = None;
        loop {
            let is_cut = self.cut.is_some();
            let limit = over.unwrap_or(self.end);
            tokio::select! {
                event = events.next_line(), if over.is_none() => match event {
                    Ok(Some(line)) => {
                        if self.event(&line) {
                            over = Some(Instant::now() + REST);
                        }
                    }
                    Ok(None) | Err(_) => over = Some(Instant::now() + REST),
                },
                piece = next(&mut stdout) => {
                    bytes = bytes.max(stdout.as_ref().map_or(0, Lines::bytes));
                    match piece {
                        Ok(Piece::Line(line)) => self.line(&line).await,
                        Ok(Piece::Long(_)) => self.cut = Some(Cut::LineTooLong(self.program.max_line)),
                        Ok(Piece::End) | Err(_) => stdout = None,
                    }
                    if self.cut.is_none() && bytes > self.program.max_output {
                        self.cut = Some(Cut::TooMuch(self.program.max_output));
                    }
                }
                piece = next(&mut stderr) => match piece {
                    Ok(Piece::Line(line) | Piece::Long(line)) => self.log(Level::Info, &String::from_utf8_lossy(&line)),
                    Ok(Piece::End) | Err(_) => stderr = None,
                },
                () = self.cancel.cancelled(), if !is_cut => self.cut = Some(Cut::Stopped),
                () = sleep_until(limit) => match over {
                    Some(_) => return,
                    None if is_cut => over = Some(Instant::now()),
                    None => self.cut = Some(Cut::Overdue(self.program.timeout)),
                },
            }
            if !is_cut && self.cut.is_some() {
                // A plug-in that prints without end gets SIGPIPE from now on.
                stdout = None;
                // The channel has room for one, and more are not needed.
                let _ = stop.try_send(());
                self.end = Instant::now() + self.program.grace + SLACK;
            }
            if over.is_some() && stdout.is_none() && stderr.is_none() {
                return;
            }
        }
    }

    /// Handles a line of the supervisor. Returns whether it was the last one.
    fn event(&mut self, line: &str) -> bool {
        match serde_json::from_str(line) {
            Ok(Event::Started { .. }) => false,
            Ok(Event::Exited { code: Some(code), .. }) => {
                self.exit = Some(Exit::Code(code));
                false
            }
            Ok(Event::Exited { code: None, signal }) => {
                self.exit = Some(Exit::Signal(signal.unwrap_or_default()));
                false
            }
            Ok(Event::Ended { killed, escaped, left }) => {
                self.escaped = escaped;
                self.left = killed.saturating_sub(escaped);
                if killed > 0 {
                    let text =
                        format!("plug-in `{}` left {killed} processes, which were killed", self.program.name);
                    self.running.journal.warn(text);
                }
                if !left.is_empty() {
                    let name = &self.program.name;
                    self.running
                        .journal
                        .error(format!("processes of plug-in `{name}` cannot be killed: {left:?}"));
                }
                true
            }
            Ok(Event::Busy) => {
                self.exit = Some(Exit::Busy);
                true
            }
            Ok(Event::Failed { error }) => {
                self.exit = Some(Exit::NotStarted(error));
                true
            }
            Err(_) => true,
        }
    }

    /// Handles a line of standard output.
    async fn line(&mut self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.said.answers > 0 {
            self.said.late += 1;
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(Line::Log(part)) => {
                let level = match part.level {
                    LogLevel::Debug => Level::Debug,
                    LogLevel::Info => Level::Info,
                    LogLevel::Warning => Level::Warning,
                    LogLevel::Error => Level::Error,
                };
                self.log(level, &part.message);
            }
            Ok(Line::Progress(part)) => self.progress(&part),
            Ok(Line::State(part)) => {
                let keep = self.checkpoints.keep(part.state, &self.running);
                let kept = tokio::select! {
                    biased;
                    kept = keep => kept,
                    () = self.cancel.cancelled() => return,
                };
                if let Err(error) = kept {
                    self.cut = Some(Cut::Unkept(error));
                }
            }
            Ok(Line::Result(outcome)) => self.answer(Answer::Result(outcome)),
            Ok(Line::Error(failure)) => self.answer(Answer::Error(failure)),
            Err(_) => {
                self.said.stray += 1;
                self.log(Level::Info, &String::from_utf8_lossy(line));
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        self.said.answers += 1;
        self.said.answer = Some(answer);
    }

    fn progress(&mut self, ProgressPart { done, total, message }: &ProgressPart) {
        let now = Instant::now();
        let is_last = *total == Some(*done);
        if !is_last && self.told.is_some_and(|at| now - at < PROGRESS) {
            return;
        }
        self.told = Some(now);
        let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
        let what = if message.is_empty() { String::new() } else { format!(": {message}") };
        self.log(Level::Info, &format!("{done}{of} done{what}"));
    }

    /// Writes a line of the plug-in to the log of the operation, within the limit.
    fn log(&mut self, level: Level, text: &str) {
        if self.log_lines >= self.program.max_log_lines {
            self.unlogged += 1;
            return;
        }
        self.log_lines += 1;
        self.running.journal.log(level, text.trim_end());
    }

    /// Says what was odd about the output.
    fn report(&self) {
        let journal: &Journal = &self.running.journal;
        let name = &self.program.name;
        let Said { answers, stray, late, .. } = self.said;
        if self.unlogged > 0 {
            journal.warn(format!("{} more lines of plug-in `{name}` were not kept", self.unlogged));
        }
        if stray > 0 {
            journal.warn(format!(
                "plug-in `{name}` printed {stray} lines on standard output that are not of the protocol"
            ));
        }
        if answers > 1 {
            journal
                .warn(format!("plug-in `{name}` printed {answers} results or errors; the last one counts"));
        } else if late > 0 {
            journal.warn(format!("plug-in `{name}` printed {late} lines after its result"));
        }
    }
}

async fn next<R: tokio::io::AsyncRead + Unpin>(lines: &mut Option<Lines<R>>) -> std::io::Result<Piece> {
    match lines {
        Some(lines) => lines.next().await,
        None => std::future::pending().await,
    }
}

type Started = (OwnedReadHalf, OwnedWriteHalf, ChildStdout, ChildStderr, tokio::process::Child);

/// Starts a supervisor, in a process group of its own, so that a terminal's Ctrl-C does not reach it, and without the
/// environment of this process, which may have secrets.
fn start(supervisor: &std::path::Path) -> std::io::Result<Started> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = Command::new(supervisor)
        .arg(ARGUMENT)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let gone = || std::io::Error::other("a pipe is missing");
    let stdout = child.stdout.take().ok_or_else(gone)?;
    let stderr = child.stderr.take().ok_or_else(gone)?;
    let (events, to_supervisor) = UnixStream::from_std(ours)?.into_split();
    Ok((events, to_supervisor, stdout, stderr, child))
}

/// Sends the request, then a heartbeat each second and a stop if there is one. Ends with the socket or the run.
async fn write(mut to: OwnedWriteHalf, header: Vec<u8>, request: Vec<u8>, mut stops: mpsc::Receiver<()>) {
    let sent = async {
        to.write_all(&header).await?;
        to.write_all(&request).await
    };
    if sent.await.is_err() {
        return;
    }
    drop((header, request));
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let byte = tokio::select! {
            _ = beats.tick() => HEARTBEAT,
            stop = stops.recv() => match stop {
                Some(()) => STOP,
                None => return,
            },
        };
        if to.write_all(&[byte]).await.is_err() {
            return;
        }
    }
}
