//! A link over TCP, and a robot's stand-in at the other end.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mbrl_env::Env;

use super::{
    Clock, DriveError, Faults, Link, LinkError, Measurement, MonotonicClock, SafeCommand, StandIn,
    error::refuse,
    stand_in::Heard,
    wire::{Decoder, Frame, Hello, WIRE_VERSION},
};

/// How long a robot may take to accept a connection and introduce itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time that a command may hold up the control loop.
const SEND: Duration = Duration::from_millis(1);
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// Measurements that wait for the driver at most; the oldest go.
const WAITING: usize = 256;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link over TCP, in the protocol of `docs/robot-protocol.md`. A separate thread reads, and reconnects when the connection
/// breaks; neither holds up the control loop.
#[derive(Debug)]
pub struct SocketLink {
    shared: Arc<Shared>,
    hello: Hello,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    peer: SocketAddr,
    /// Where commands go; `None` while there is no connection.
    stream: Mutex<Option<TcpStream>>,
    inbox: Mutex<VecDeque<Result<Measurement, LinkError>>>,
    quit: AtomicBool,
}

impl Shared {
    fn peer(&self) -> String {
        self.peer.to_string()
    }

    fn put(&self, item: Result<Measurement, LinkError>) {
        let mut inbox = lock(&self.inbox);
        if inbox.len() == WAITING {
            inbox.pop_front();
        }
        inbox.push_back(item);
    }

    fn io(&self, source: io::Error) -> LinkError {
        LinkError::Io { peer: self.peer(), source }
    }

    /// Connects, and reads the robot's introduction.
    fn connect(&self, decoder: &mut Decoder) -> Result<(TcpStream, Hello), LinkError> {
        let stream = TcpStream::connect_timeout(&self.peer, PATIENCE).map_err(|error| self.io(error))?;
        let set = || {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(SEND))?;
            stream.set_read_timeout(Some(Duration::from_millis(50)))
        };
        set().map_err(|error| self.io(error))?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE && !self.quit.load(Ordering::Relaxed) {
            self.read(&stream, decoder)?;
            match decoder.next_frame().map_err(|reason| self.protocol(reason))? {
                None => {}
                Some(Frame::Hello(hello)) if hello.version == WIRE_VERSION => return Ok((stream, hello)),
                Some(Frame::Hello(hello)) => {
                    let reason = format!("version {} of the protocol, expected {WIRE_VERSION}", hello.version);
                    return Err(self.protocol(reason));
                }
                Some(_) => return Err(self.protocol("another frame before its introduction".into())),
            }
        }
        Err(self.protocol(format!("no introduction within {} s", PATIENCE.as_secs())))
    }

    fn protocol(&self, reason: String) -> LinkError {
        LinkError::Protocol { peer: self.peer(), reason }
    }

    /// Takes in what comes within the read's timeout.
    fn read(&self, mut stream: &TcpStream, decoder: &mut Decoder) -> Result<(), LinkError> {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => Err(LinkError::Down { peer: self.peer() }),
            Ok(count) => {
                decoder.take(&bytes[..count]);
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(self.io(error)),
        }
    }

    /// Reads until the connection breaks.
    fn serve(&self, stream: &TcpStream, decoder: &mut Decoder, session: u32) -> Result<(), LinkError> {
        while !self.quit.load(Ordering::Relaxed) {
            while let Some(frame) = decoder.next_frame().map_err(|reason| self.protocol(reason))? {
                if let Frame::Measurement(measured) = frame {
                    self.put(Ok(measured.in_session(session)));
                }
            }
            self.read(stream, decoder)?;
        }
        Ok(())
    }
}

impl SocketLink {
    /// Connects to a robot at `address`, `HOST:PORT` with or without `tcp://` before it.
    ///
    /// # Errors
    /// [`DriveError::Config`] for what is no address; [`LinkError`] where nobody answers, or in another protocol.
    pub fn connect(address: &str) -> Result<Self, DriveError> {
        let plain = address.strip_prefix("tcp://").unwrap_or(address);
        let peer = plain.to_socket_addrs().ok().and_then(|mut found| found.next());
        let Some(peer) = peer else { return refuse("link", address, "tcp://HOST:PORT of a robot") };
        let shared =
            Arc::new(Shared { peer, stream: Mutex::new(None), inbox: Mutex::default(), quit: AtomicBool::new(false) });
        let mut decoder = Decoder::default();
        let (stream, hello) = shared.connect(&mut decoder)?;
        *lock(&shared.stream) = Some(stream.try_clone().map_err(|error| shared.io(error))?);
        let (here, expected) = (Arc::clone(&shared), hello.clone());
        let reader = thread::Builder::new().name("robot link".into()).spawn(move || {
            let (mut stream, mut session) = (stream, 0);
            while !here.quit.load(Ordering::Relaxed) {
                let ended = here.serve(&stream, &mut decoder, session);
                *lock(&here.stream) = None;
                let Err(error) = ended else { return };
                here.put(Err(error));
                while !here.quit.load(Ordering::Relaxed) {
                    decoder = Decoder::default();
                    match here.connect(&mut decoder) {
                        Ok((again, hello)) if (hello.obs, hello.actions) == (expected.obs, expected.actions) => {
                            let Ok(clone) = again.try_clone() else { continue };
                            (stream, session) = (again, session + 1);
                            *lock(&here.stream) = Some(clone);
                            break;
                        }
                        _ => thread::sleep(PAUSE),
                    }
                }
            }
        });
        let reader = reader.map_err(|error| shared.io(error))?;
        Ok(Self { shared, hello, reader: Some(reader) })
    }

    /// What the robot said about itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }
}

impl Link for SocketLink {
    fn send(&mut self, command: &SafeCommand) -> Result<(), LinkError> {
        let mut stream = lock(&self.shared.stream);
        let Some(open) = &mut *stream else { return Err(LinkError::Down { peer: self.shared.peer() }) };
        if let Err(error) = open.write_all(&command.encode()) {
            // Half a frame may have left: nothing after it would be understood.
            let _ = open.shutdown(Shutdown::Both);
            *stream = None;
            return Err(self.shared.io(error));
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Measurement>, LinkError> {
        lock(&self.shared.inbox).pop_front().transpose()
    }
}

impl Drop for SocketLink {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        if let Some(stream) = lock(&self.shared.stream).take() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A [`StandIn`] behind a socket of this machine, on a thread of its own and in real time.
///
/// ```no_run
/// use mbrl_env::tasks;
/// use mbrl_policy::realtime::{Faults, Loopback, SocketLink, StandIn, StandInConfig};
///
/// let robot = StandIn::new(tasks::make("pendulum")?.env, StandInConfig::default(), Faults::new())?;
/// let loopback = Loopback::start(robot, "127.0.0.1:0")?;
/// let link = SocketLink::connect(&loopback.address())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Loopback {
    address: SocketAddr,
    quit: Arc<AtomicBool>,
    server: Option<JoinHandle<StandIn>>,
}

impl Loopback {
    /// Lets a stand-in serve one driver after the other at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// [`LinkError::Io`] where the address is taken.
    pub fn start(robot: StandIn, address: &str) -> Result<Self, DriveError> {
        let failed = |source| LinkError::Io { peer: address.to_owned(), source };
        let bind = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = bind().map_err(failed)?;
        let quit = Arc::new(AtomicBool::new(false));
        let (stop, mut server) = (Arc::clone(&quit), Server::new(robot, listener));
        let thread = thread::Builder::new().name("stand-in".into()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                server.turn();
                thread::sleep(Duration::from_micros(500));
            }
            server.robot
        });
        let server = thread.map_err(|source| LinkError::Io { peer: address.to_string(), source })?;
        Ok(Self { address, quit, server: Some(server) })
    }

    /// Where it serves, as `tcp://…`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Ends it and gives the robot back; `None` where its thread panicked.
    #[must_use]
    pub fn stop(mut self) -> Option<StandIn> {
        self.quit.store(true, Ordering::Relaxed);
        self.server.take()?.join().ok()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

struct Server {
    robot: StandIn,
    clock: MonotonicClock,
    faults: Faults,
    listener: TcpListener,
    driver: Option<(TcpStream, Decoder)>,
}

impl Server {
    fn new(robot: StandIn, listener: TcpListener) -> Self {
        let faults = robot.faults().clone();
        Self { robot, clock: MonotonicClock::start(), faults, listener, driver: None }
    }

    fn turn(&mut self) {
        let now = self.clock.now();
        self.robot.run_to(now);
        if self.faults.is_killed() {
            self.lose();
            // Nobody is there: whoever called is turned away.
            while self.listener.accept().is_ok() {}
            return;
        }
        if self.driver.is_none()
            && let Ok((stream, _)) = self.listener.accept()
        {
            self.robot.forget();
            let spec = self.robot.world().spec();
            let width = |width: usize| u16::try_from(width).unwrap_or(u16::MAX);
            let hello = Hello {
                version: WIRE_VERSION,
                obs: width(spec.obs.width()),
                actions: width(spec.actions.width()),
                period: self.robot.period().as_secs_f64(),
                name: spec.name.clone(),
            };
            let greet = |mut stream: &TcpStream| {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                stream.write_all(&hello.encode())
            };
            if greet(&stream).is_ok() {
                self.driver = Some((stream, Decoder::default()));
            }
        }
        if self.driver.is_some() && self.exchange(now).is_none() {
            self.lose();
        }
    }

    /// Reads and writes what there is; `None` where the connection is gone.
    fn exchange(&mut self, now: Duration) -> Option<()> {
        let (stream, decoder) = self.driver.as_mut()?;
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => decoder.take(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        while let Some(frame) = decoder.next_frame().ok()? {
            match frame {
                Frame::Command { tick, action } => self.robot.hear(now, Heard { tick, action: Some(action) }),
                Frame::Stop { tick } => self.robot.hear(now, Heard { tick, action: None }),
                Frame::Hello(_) | Frame::Measurement(_) => return None,
            }
        }
        while let Some(measured) = self.robot.tell(now) {
            stream.write_all(&measured.encode()).ok()?;
        }
        Some(())
    }

    fn lose(&mut self) {
        if let Some((stream, _)) = self.driver.take() {
            let _ = stream.shutdown(Shutdown::Both);
            self.robot.cut();
        }
    }
}
