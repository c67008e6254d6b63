//! A child process that never makes its parent wait longer than agreed, and never outlives it.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    ProcessFault,
    protocol::{MAGIC, MAX_FRAME, MAX_PREAMBLE},
};

/// How much of standard error is kept (bytes), and how many lines and characters of it are reported.
const SAID: usize = 16 << 10;
const SAID_LINES: usize = 30;
const SAID_CHARS: usize = 3000;
/// How long a process that has closed its output may take to exit, so that its exit code can be reported.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// Time from SIGTERM to SIGKILL.
const TERMINATION: Duration = Duration::from_secs(1);

/// The deadline of an answer, and the option that sets it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    seconds: f64,
    option: &'static str,
}

impl Deadline {
    pub(super) fn after(seconds: f64, option: &'static str) -> Self {
        Self { at: Instant::now() + Duration::from_secs_f64(seconds), seconds, option }
    }

    fn missed(self) -> ProcessFault {
        ProcessFault::TimedOut { seconds: self.seconds, option: self.option }
    }
}

/// The process, its pipes and its output.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// Ends the child's process group when this process dies and cannot do so itself.
    guard: Option<Child>,
    input: Option<ChildStdin>,
    output: ChildStdout,
    buffer: Vec<u8>,
    /// The part of the buffer that holds data: start and end.
    start: usize,
    end: usize,
    said: Arc<Said>,
    status: Option<ExitStatus>,
    /// How long it may take to exit when asked to (s).
    stop: Duration,
    /// It did not answer a request, or answered nonsense: it will not read a request to exit.
    lost: bool,
}

impl Server {
    /// Starts a process; with `show`, its standard error is copied to ours.
    pub(super) fn spawn(mut command: Command, stop: Duration, show: bool) -> Result<Self, ProcessFault> {
        // A group of its own: Ctrl-C does not reach it, and its children can be ended with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(ProcessFault::Start)?;
        let guard = guard(child.id());
        let said = Arc::new(Said::default());
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            thread::spawn(move || said.follow(stderr, show));
        }
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or_else(|| ProcessFault::Io(std::io::ErrorKind::BrokenPipe.into()))?;
        if let Some(input) = &input {
            let flags = OFlag::from_bits_retain(fcntl(input, FcntlArg::F_GETFL).map_err(io)?);
            fcntl(input, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(io)?;
        }
        let buffer = vec![0; 64 << 10];
        Ok(Self { child, guard, input, output, buffer, start: 0, end: 0, said, status: None, stop, lost: false })
    }

    /// Sends a whole frame.
    pub(super) fn send(&mut self, mut frame: &[u8], deadline: Deadline) -> Result<(), ProcessFault> {
        while !frame.is_empty() {
            let Some(input) = &mut self.input else { return Err(ProcessFault::Closed) };
            match input.write(frame) {
                Ok(count) => frame = &frame[count..],
                // Its end of the pipe is full: it does not read.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    wait_for(input, PollFlags::POLLOUT, deadline)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(self.ended()),
                Err(error) => return Err(ProcessFault::Io(error)),
            }
        }
        Ok(())
    }

    /// Skips text printed before the first frame, which is treated as output on standard error.
    pub(super) fn hello(&mut self, deadline: Deadline) -> Result<(), ProcessFault> {
        loop {
            let data = &self.buffer[self.start..self.end];
            if let Some(at) = data.windows(MAGIC.len()).position(|window| window == MAGIC) {
                self.said.add(&data[..at]);
                self.start += at + MAGIC.len();
                return Ok(());
            }
            if data.len() > MAX_PREAMBLE {
                return Err(self.rubbish());
            }
            match self.fill(deadline) {
                Ok(()) => {}
                Err(ProcessFault::TimedOut { .. } | ProcessFault::Closed) if self.end > self.start => {
                    return Err(self.rubbish());
                }
                Err(fault) => {
                    self.said.add(&self.buffer[self.start..self.end]);
                    return Err(fault);
                }
            }
        }
    }

    /// Waits for a frame: its kind and payload.
    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<(u8, &[u8]), ProcessFault> {
        let length = loop {
            let data = &self.buffer[self.start..self.end];
            if let Some((&length, _)) = data.split_first_chunk::<4>() {
                let announced = u32::from_le_bytes(length) as usize;
                if announced > MAX_FRAME || announced == 0 {
                    let text =
                        length.iter().all(|byte| (b' '..127).contains(byte) || b"\t\r\n".contains(byte) || *byte > 127);
                    let bytes = announced as u64;
                    return Err(match (text, announced) {
                        (true, _) => self.rubbish(),
                        (_, 0) => ProcessFault::Malformed { reason: "it is empty".into() },
                        _ => ProcessFault::TooLarge { bytes },
                    });
                }
                if data.len() >= 4 + announced {
                    break announced;
                }
            }
            if let Err(fault) = self.fill(deadline) {
                let cut_short = matches!(fault, ProcessFault::TimedOut { .. } | ProcessFault::Closed);
                let data = &self.buffer[self.start..self.end];
                // Shorter than a frame's length field, and all of it text.
                let is_text = !data.is_empty()
                    && data.len() < 4
                    && data.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
                return Err(if cut_short && is_text { self.rubbish() } else { fault });
            }
        };
        let payload = self.start + 4..self.start + 4 + length;
        self.start = payload.end;
        Ok((self.buffer[payload.start], &self.buffer[payload.start + 1..payload.end]))
    }

    /// Whether unrequested data arrived.
    pub(super) fn has_more(&self) -> bool {
        self.end > self.start
    }

    /// Waits for more data.
    fn fill(&mut self, deadline: Deadline) -> Result<(), ProcessFault> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start.., 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // Grows with the data that arrives: data that is announced but does not arrive takes no memory.
                self.buffer.resize(2 * self.buffer.len(), 0);
            }
        }
        wait_for(&self.output, PollFlags::POLLIN, deadline)?;
        match self.output.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err(self.ended()),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(ProcessFault::Io(error)),
        }
    }

    /// Why a pipe is closed: the process has ended, or closed it.
    fn ended(&mut self) -> ProcessFault {
        self.lost = true;
        if self.await_end(LAST_MOMENT) {
            self.finish();
        }
        self.status.map_or(ProcessFault::Closed, ProcessFault::Exited)
    }

    fn rubbish(&self) -> ProcessFault {
        let data = &self.buffer[self.start..self.end];
        let text: String = String::from_utf8_lossy(&data[..data.len().min(400)]).chars().take(100).collect();
        ProcessFault::Rubbish { text }
    }

    /// The end of its output, after it was terminated.
    pub(super) fn said(&self) -> String {
        self.said.tail()
    }

    /// It is no longer usable: ends it without asking.
    pub(super) fn abandon(&mut self) {
        self.lost = true;
        self.end_group();
    }

    /// Asks it with `farewell` to exit, then ends it.
    pub(super) fn stop(&mut self, farewell: &[u8]) {
        if !self.lost && self.status.is_none() {
            let deadline = Deadline { at: Instant::now() + self.stop, seconds: 0.0, option: "" };
            if self.send(farewell, deadline).is_ok() {
                self.await_end(self.stop);
            }
        }
        self.end_group();
    }

    /// Whether it exits within this time. It is not reaped, so that its process id stays in use while its group is ended.
    fn await_end(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut pause = Duration::from_micros(200);
        loop {
            if self.status.is_some() || self.has_ended() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(pause.min(limit));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    #[cfg(target_os = "linux")]
    fn has_ended(&mut self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(pid(&self.child)), flags), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
    }

    #[cfg(not(target_os = "linux"))]
    fn has_ended(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(status) => {
                self.status = status;
                status.is_some()
            }
            Err(_) => true,
        }
    }

    /// Ends the process and all that it started, and reaps it.
    fn end_group(&mut self) {
        if self.status.is_none() && !self.await_end(Duration::ZERO) {
            let _ = killpg(pid(&self.child), Signal::SIGTERM);
            self.await_end(TERMINATION);
        }
        self.finish();
    }

    /// Ends what is left of the group, and reaps the process.
    fn finish(&mut self) {
        if self.status.is_none() {
            // No other process has this id until the process is reaped.
            let _ = killpg(pid(&self.child), Signal::SIGKILL);
            self.status = self.child.wait().ok();
        }
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lost = true;
        self.end_group();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// A shell that does nothing until its input closes because this process has died; the group then has two seconds left.
fn guard(group: u32) -> Option<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "read -r _; sleep 2; kill -s KILL -- \"-$0\"", &group.to_string()]);
    shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().ok()
}

/// How long to busy-wait for an answer. A sleeping core takes some 40 µs to wake, which is more than most environments take
/// for a step; those that take longer lose little by it.
const AWAKE: Duration = Duration::from_micros(100);

/// Waits until a pipe is ready, or closed.
fn wait_for(pipe: &impl AsFd, what: PollFlags, deadline: Deadline) -> Result<(), ProcessFault> {
    let is_ready = |pipe: &_| matches!(poll(&mut [PollFd::new(AsFd::as_fd(pipe), what)], PollTimeout::ZERO), Ok(1));
    // With one core, busy-waiting keeps the other side from answering.
    static SEVERAL_CORES: LazyLock<bool> =
        LazyLock::new(|| thread::available_parallelism().is_ok_and(|cores| cores.get() > 1));
    if *SEVERAL_CORES {
        let until = Instant::now() + AWAKE;
        while Instant::now() < until {
            if is_ready(pipe) {
                return Ok(());
            }
            thread::yield_now();
        }
    }
    loop {
        let left = deadline.at.saturating_duration_since(Instant::now());
        // Rounded up, so that the last fraction of a millisecond is waited for.
        let left = (left + Duration::from_micros(999)).as_millis().min(60_000) as u16;
        match poll(&mut [PollFd::new(pipe.as_fd(), what)], PollTimeout::from(left)) {
            Ok(0) if Instant::now() >= deadline.at => return Err(deadline.missed()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(io(error)),
        }
    }
}

fn io(error: Errno) -> ProcessFault {
    ProcessFault::Io(error.into())
}

/// The end of a process's standard error.
#[derive(Debug, Default)]
struct Said {
    kept: Mutex<Kept>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    is_closed: bool,
}

impl Said {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        kept.bytes.extend(bytes);
        let excess = kept.bytes.len().saturating_sub(SAID);
        kept.bytes.drain(..excess);
    }

    /// Reads all of it, so that the process never waits to be read.
    fn follow(&self, mut stderr: ChildStderr, show: bool) {
        let mut buffer = [0; 4096];
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.add(&buffer[..count]);
                    if show {
                        let _ = std::io::stderr().write_all(&buffer[..count]);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.kept().is_closed = true;
        self.closed.notify_all();
    }

    /// The last lines, after a short wait for those still in the pipe.
    fn tail(&self) -> String {
        let wait = Duration::from_millis(200);
        let kept = self.closed.wait_timeout_while(self.kept(), wait, |kept| !kept.is_closed);
        let kept = kept.unwrap_or_else(PoisonError::into_inner).0;
        let bytes: Vec<u8> = kept.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(SAID_LINES)..].join("\n");
        let excess = last.chars().count().saturating_sub(SAID_CHARS);
        if excess == 0 { last } else { format!("…{}", last.chars().skip(excess).collect::<String>()) }
    }
}
