//! The control socket: local programs ask the running agent over a unix socket.
//!
//! 1. The agent binds `control.sock` and one socket for each group (0660, its group set before it listens; `access`): a stale one that nobody answers at is replaced; anything that is not a socket is left alone and told.
//! 2. A client sends one JSON line, `{"get":"status"}` (all of them are in `question`), and gets one JSON document, then the connection is
//!    closed. A watch gets one line per message until it ends (`watching`).
//! 3. At most [`CONTROL_CLIENTS`] are served at once (I4), each within [`CONTROL_TIMEOUT`], a watch within its own time; of these at most
//!    [`WATCHERS_MAX`], so that the status is always answered. A slow or babbling client costs only itself.
//!    Of one user of a group at most [`CONTROL_CLIENTS_PER_USER`] are served at once by each socket, the others of his are told so and let go.
//! 4. When the agent stops, the socket file goes.
//!
//! The client side says what to do in each case in which nobody answers.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::access::{Door, Group, needed};
use super::on_site::Peer;
use super::question::Request;
use super::watching::{Line, Watching};
use crate::limits::{
    CONTROL_ANSWER_BYTES_MAX, CONTROL_CLIENTS, CONTROL_CLIENTS_PER_USER, CONTROL_REQUEST_BYTES_MAX, CONTROL_TIMEOUT, WATCHERS_MAX,
};

/// How an answer is to be had.
pub enum Answer {
    /// A JSON document.
    Now(String),
    /// One that reads the disk; made on a thread for blocking calls.
    Later(Box<dyn FnOnce() -> String + Send>),
    /// Lines as messages come.
    Watch(Watching),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
            Self::Watch(_) => "Watch",
        })
    }
}

/// Why the agent could not open its control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{} is served by another process; stop it, or give this gateway its own gateway.control_socket", .0.display())]
    InUse(PathBuf),
    #[error("{} is there and not a socket; move it away, or set gateway.control_socket to another path", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot make the control socket {}; check that its directory exists and belongs to this user", path.display())]
    Failed { path: PathBuf, source: io::Error },
}

/// The agent's end. The socket file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    door: Door,
    /// For one client.
    deadline: Duration,
}

impl ControlSocket {
    /// Needs a runtime around it.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_as(path, Door::Owner, None)
    }

    /// For the members of a group, whose number is `gid`.
    pub fn bind_for(path: &Path, group: Group, gid: u32) -> Result<Self, BindError> {
        Self::bind_as(path, Door::Of(group), Some(gid))
    }

    fn bind_as(path: &Path, door: Door, gid: Option<u32>) -> Result<Self, BindError> {
        Ok(Self { listener: listen(path, gid)?, path: path.to_owned(), door, deadline: CONTROL_TIMEOUT })
    }

    /// Answers until told to stop. `answer` must not block.
    pub async fn serve<F>(self, answer: F, mut stop: watch::Receiver<bool>)
    where
        F: Fn(Request, Peer) -> Answer + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        let places = Arc::new(Semaphore::new(CONTROL_CLIENTS));
        let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
        let (deadline, door) = (self.deadline, self.door);
        let users = Users::default();
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                    let Some(seat) = users.seat(door, uid) else {
                        // What does not fit into an empty socket buffer is not waited for.
                        let _ = stream.try_write(format!("{}\n", error_document(TOO_MANY)).as_bytes());
                        continue;
                    };
                    let (answer, watchers) = (Arc::clone(&answer), Arc::clone(&watchers));
                    tokio::spawn(async move {
                        if let Err(error) = exchange(stream, door, answer.as_ref(), &watchers, deadline).await {
                            tracing::debug!(%error, "a client of the control socket went away");
                        }
                        drop((place, seat));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept; trying again in a second");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

const TOO_MANY: &str = "this user asks as much at once as one may; end one of `siteward sniff` or `siteward feeds record`, or wait";

/// How many of each user are served by a socket.
#[derive(Clone, Debug, Default)]
struct Users(Arc<Mutex<BTreeMap<u32, usize>>>);

/// Goes with its client.
struct Seat(Option<(Users, u32)>);

impl Users {
    fn served(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: this user has as many as one may. Root, and whoever the owner's socket lets through, are not counted.
    fn seat(&self, door: Door, uid: Option<u32>) -> Option<Seat> {
        let Some(uid) = uid.filter(|uid| *uid != 0 && door != Door::Owner) else { return Some(Seat(None)) };
        let mut served = self.served();
        let count = served.entry(uid).or_default();
        (*count < CONTROL_CLIENTS_PER_USER).then(|| {
            *count += 1;
            Seat(Some((self.clone(), uid)))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((users, uid)) = self.0.take() else { return };
        let mut served = users.served();
        let left = served.remove(&uid).unwrap_or(0).saturating_sub(1);
        if left > 0 {
            served.insert(uid, left);
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A socket file left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A socket of mode 0660 at `path`, for the group `gid` where there is one; one that nobody answers at is replaced. Needs a runtime around it.
pub(super) fn listen(path: &Path, gid: Option<u32>) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Failed { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {
            // A full backlog does not block here: the kernel refuses a non-blocking connect, and refusal for that reason means alive.
            match connect_now(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed)?,
                Ok(()) => return Err(BindError::InUse(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(BindError::InUse(path.to_owned())),
                Err(error) => return Err(failed(error)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    open(path, gid).map_err(failed)
}

/// Nobody is let in before the file says who may: it is bound, given its group and mode, and only then listens.
fn open(path: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let ready = || {
        std::os::unix::fs::chown(path, None, gid)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(CONTROL_CLIENTS).expect("small") * 4)
    };
    if let Err(error) = ready() {
        std::fs::remove_file(path)?;
        return Err(error);
    }
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

fn connect_now(path: &Path) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)
}

async fn exchange<F: Fn(Request, Peer) -> Answer>(
    mut stream: UnixStream,
    door: Door,
    answer: &F,
    watchers: &Semaphore,
    deadline: Duration,
) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let peer = Peer { uid: stream.peer_cred().ok().map(|credentials| credentials.uid()), door };
    let answer = async {
        Ok::<_, io::Error>(match read_request(&mut stream).await? {
            Ok(request) => answer(request, peer),
            Err(why) => Answer::Now(error_document(why)),
        })
    };
    let document = match timeout(deadline, answer).await.map_err(late)?? {
        Answer::Now(document) => document,
        // It keeps its own budget; a disk that hangs must not keep the client too.
        Answer::Later(make) => match timeout(deadline, tokio::task::spawn_blocking(make)).await {
            Ok(Ok(document)) => document,
            Ok(Err(_)) => error_document("the answer could not be made; see the agent's log"),
            Err(_) => error_document(
                "the answer took too long; is the disk in trouble? Whether an order was carried out says `siteward audit list`",
            ),
        },
        Answer::Watch(watching) => match watchers.try_acquire() {
            Ok(_place) => return watching.serve(&mut stream).await,
            Err(_) => error_document("as many watch already as may; end one of `siteward sniff` or `siteward feeds record`"),
        },
    };
    let reply = async {
        stream.write_all(document.as_bytes()).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    };
    timeout(deadline, reply).await.map_err(late)?
}

fn error_document(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

/// One line, bounded; the inner error is for the client.
async fn read_request(stream: &mut UnixStream) -> io::Result<Result<Request, &'static str>> {
    let mut line = Vec::new();
    let mut chunk = [0u8; 1024];
    while !line.contains(&b'\n') {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            break;
        }
        line.extend_from_slice(&chunk[..n]);
        if line.len() > CONTROL_REQUEST_BYTES_MAX {
            return Ok(Err("the request is too long"));
        }
    }
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line).map_err(|_| "not a request this version knows; ask {\"get\":\"status\"}"))
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "no agent is running here: nobody answers at {}; start it with `systemctl start siteward`, or give the --config it was started with",
        .0.display()
    )]
    NotRunning(PathBuf),
    #[error("this user may not ask the agent at {}; {}", .0.display(), .1.refusal())]
    Denied(PathBuf, Group),
    #[error("the agent at {} does not answer within {} s; look at `journalctl -u siteward`", .0.display(), CONTROL_TIMEOUT.as_secs())]
    Silent(PathBuf),
    #[error("the agent at {} gave no usable answer; restart it if it is of another version than this program", .0.display())]
    Unusable(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("cannot ask the agent at {}", path.display())]
    Failed { path: PathBuf, source: io::Error },
}

fn told(path: &Path, request: &Request, error: io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(path.to_owned()),
        io::ErrorKind::PermissionDenied => AskError::Denied(path.to_owned(), needed(request)),
        io::ErrorKind::WouldBlock => AskError::Silent(path.to_owned()),
        _ => AskError::Failed { path: path.to_owned(), source: error },
    }
}

async fn connect(path: &Path, request: &Request) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream)
}

/// Asks the agent that listens at `path`; the answer is JSON.
pub async fn ask(path: &Path, request: &Request) -> Result<serde_json::Value, AskError> {
    let exchange = async {
        let stream = connect(path, request).await?;
        let mut answer = Vec::new();
        stream.take(CONTROL_ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    // Twice, because the agent has as long for what it reads from disk.
    let answer = timeout(CONTROL_TIMEOUT * 2, exchange).await.map_err(|_| AskError::Silent(path.to_owned()))?;
    let answer = answer.map_err(|error| told(path, request, error))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| AskError::Unusable(path.to_owned()))?;
    match answer.get("error") {
        Some(why) => Err(AskError::Refused(why.as_str().unwrap_or("the agent refuses to answer").to_owned())),
        None => Ok(answer),
    }
}

/// Watches: `each` is called for every line, until it says that it has enough or the agent ends the watch. `Ok(false)`: the agent went away
/// before the watch had ended.
pub async fn watch(path: &Path, request: &Request, mut each: impl FnMut(Line) -> bool) -> Result<bool, AskError> {
    let connected = timeout(CONTROL_TIMEOUT, connect(path, request)).await.map_err(|_| AskError::Silent(path.to_owned()))?;
    let mut lines = BufReader::new(connected.map_err(|error| told(path, request, error))?.take(u64::MAX)).lines();
    let mut first = true;
    loop {
        let next = lines.next_line();
        // Only the first line is owed at once; the agent bounds the rest.
        let line = if first { timeout(CONTROL_TIMEOUT, next).await.map_err(|_| AskError::Silent(path.to_owned()))? } else { next.await };
        let Some(line) = line.map_err(|error| told(path, request, error))? else { return Ok(false) };
        if first
            && let Some(why) =
                serde_json::from_str::<serde_json::Value>(&line).ok().and_then(|v| v.get("error")?.as_str().map(str::to_owned))
        {
            return Err(AskError::Refused(why));
        }
        first = false;
        let line: Line = serde_json::from_str(&line).map_err(|_| AskError::Unusable(path.to_owned()))?;
        let is_end = matches!(line, Line::Ended { .. });
        if !each(line) || is_end {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &Request = &Request::STATUS;

    struct Served {
        path: PathBuf,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
        _directory: tempfile::TempDir,
    }

    fn serve_in(directory: tempfile::TempDir) -> Served {
        serve_within(CONTROL_TIMEOUT, directory)
    }

    fn serve_within(deadline: Duration, directory: tempfile::TempDir) -> Served {
        let path = directory.path().join("control.sock");
        let mut socket = ControlSocket::bind(&path).unwrap();
        socket.deadline = deadline;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(socket.serve(|_, _| Answer::Now(r#"{"gateway":"g"}"#.to_owned()), stopped));
        Served { path, stop, task, _directory: directory }
    }

    #[tokio::test]
    async fn a_client_gets_the_status_and_the_socket_goes_at_stop() {
        let served = serve_in(tempfile::tempdir().unwrap());
        assert_eq!(std::fs::metadata(&served.path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(ask(&served.path, STATUS).await.unwrap()["gateway"], "g");
        served.stop.send(true).unwrap();
        served.task.await.unwrap();
        assert!(!served.path.exists());
        let told = ask(&served.path, STATUS).await.unwrap_err().to_string();
        assert!(told.starts_with("no agent is running here") && told.contains("systemctl start siteward"), "{told}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind by an agent that was killed");
        assert!(matches!(ask(&path, STATUS).await, Err(AskError::NotRunning(_))));
        let served = serve_in(directory);
        assert!(ask(&served.path, STATUS).await.is_ok());
    }

    #[tokio::test]
    async fn a_socket_in_use_and_a_file_are_left_alone() {
        let served = serve_in(tempfile::tempdir().unwrap());
        assert!(matches!(ControlSocket::bind(&served.path), Err(BindError::InUse(_))));
        assert!(ask(&served.path, STATUS).await.is_ok(), "the one that serves is not disturbed");
        let file = served.path.with_file_name("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&file), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    /// I4: what a client sends is bounded.
    #[tokio::test]
    async fn requests_that_are_unknown_or_endless_are_refused() {
        let served = serve_in(tempfile::tempdir().unwrap());
        let babble = vec![b'x'; CONTROL_REQUEST_BYTES_MAX + 4096];
        for request in [&b"{\"get\":\"everything\"}\n"[..], b"\n", b"{\"get\":\"status\",\"and\":1}\n", b"\xff\xff\n", &babble] {
            let mut stream = UnixStream::connect(&served.path).await.unwrap();
            // The server may hang up on babble before all of it is written.
            let _ = stream.write_all(request).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains("gateway"));
        }
        assert!(ask(&served.path, STATUS).await.is_ok());
    }

    #[test]
    fn one_user_of_a_group_leaves_room_for_the_others() {
        let (users, door) = (Users::default(), Door::Of(Group::View));
        let mut seats: Vec<Seat> = (0..CONTROL_CLIENTS).map_while(|_| users.seat(door, Some(1000))).collect();
        assert_eq!(seats.len(), CONTROL_CLIENTS_PER_USER);
        assert!(
            users.seat(door, Some(1001)).is_some() && users.seat(door, Some(0)).is_some() && users.seat(Door::Owner, Some(1000)).is_some()
        );
        seats.pop();
        assert!(users.seat(door, Some(1000)).is_some());
        seats.clear();
        assert!(users.served().is_empty(), "nobody is remembered who is gone");
    }

    #[tokio::test]
    async fn silent_clients_do_not_lock_others_out() {
        let served = serve_within(Duration::from_millis(20), tempfile::tempdir().unwrap());
        let mut silent = Vec::new();
        for _ in 0..CONTROL_CLIENTS {
            silent.push(UnixStream::connect(&served.path).await.unwrap());
        }
        assert!(ask(&served.path, STATUS).await.is_ok());
        drop(silent);
    }
}
