//! One connection: calls go out, everything that comes in is one ordered stream.

use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::names::UniqueName;
use zbus::{Connection, Message, MessageStream};

use super::Addresses;
use super::private::Private;
use crate::words::plain;

/// How long a connection, a call or its reply may take. PID 1 answers nothing
/// while it reloads its units, which takes seconds on a node with many.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many messages wait to be checked before the socket is left unread:
/// more than a daemon-reload sends on a busy node. They are small, and the
/// memory is taken only while they wait.
const QUEUE: NonZeroUsize = NonZeroUsize::new(8192).expect("8192 is not 0");

/// Why listening ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to {address}: {}", innermost(error))]
    Connect { address: String, error: zbus::Error },
    #[error("cannot connect to {address}: {}", plain(error))]
    Socket {
        address: String,
        error: std::io::Error,
    },
    #[error("cannot connect to {address}: no answer within {PATIENCE:?}")]
    Mute { address: String },
    #[error("{0}; {1}")]
    Neither(Box<Error>, Box<Error>),
    #[error("a call was not answered within {PATIENCE:?}")]
    Unanswered,
    #[error("a call was refused: {0}")]
    Refused(String),
    #[error("{0}")]
    Peer(String),
    #[error("more than {0} jobs")]
    Jobs(usize),
    #[error("the connection ended")]
    Ended,
    #[error("{0} moved to another connection")]
    Moved(&'static str),
    #[error("{}", innermost(.0))]
    Bus(#[from] zbus::Error),
}

/// What is at the bottom of an error: what stands above it repeats the address.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let last = all.last().unwrap_or(error);
    let own = last.downcast_ref::<io::Error>();
    let shared = || last.downcast_ref::<Arc<io::Error>>().map(|it| &**it);
    own.or_else(shared).map_or_else(|| last.to_string(), plain)
}

/// When the reply to a call that was just sent is overdue.
pub fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// A connection to a peer or to a bus.
pub struct Link {
    connection: Connection,
    messages: MessageStream,
}

impl Link {
    /// Connects to systemd: to its own socket, else by the system bus.
    pub async fn to_systemd(addresses: &Addresses) -> Result<Self, Error> {
        match Link::to_manager(&addresses.manager).await {
            Ok(link) => Ok(link),
            Err(first) => Link::to_bus(&addresses.system_bus)
                .await
                .map_err(|second| Error::Neither(Box::new(first), Box::new(second))),
        }
    }

    /// Connects to systemd's own socket, at `socket`.
    async fn to_manager(socket: &Path) -> Result<Self, Error> {
        let address = socket.display().to_string();
        let connect = async {
            let private = connected(socket, &address, true).await?;
            Self::open(&address, Builder::socket(private).p2p()).await
        };
        match timeout(PATIENCE, connect).await {
            Ok(link) => link,
            Err(_) => Err(Error::Mute { address }),
        }
    }

    /// Connects to the bus at `address`.
    pub async fn to_bus(address: &str) -> Result<Self, Error> {
        let connect = async {
            match socket_of(address) {
                // What it may send is bounded.
                Some(socket) => {
                    let private = connected(socket, address, false).await?;
                    Self::open(address, Builder::socket(private)).await
                }
                None => Self::open(address, Builder::address(address)).await,
            }
        };
        timeout(PATIENCE, connect).await.unwrap_or_else(|_| {
            Err(Error::Mute {
                address: address.to_owned(),
            })
        })
    }

    async fn open(address: &str, builder: Builder<'_>) -> Result<Self, Error> {
        let connection =
            builder
                .max_queued(QUEUE)
                .build()
                .await
                .map_err(|error| Error::Connect {
                    address: address.to_owned(),
                    error,
                })?;
        let messages = MessageStream::from(&connection);
        Ok(Link {
            connection,
            messages,
        })
    }

    /// Whether a bus is between this end and the others. If so, anyone may send
    /// a signal here, and the sender must be checked.
    pub fn is_bus(&self) -> bool {
        self.connection.is_bus()
    }

    /// Sends a call and returns the number by which its reply is known.
    pub async fn send(&self, call: &Message) -> Result<NonZeroU32, Error> {
        match timeout(PATIENCE, self.connection.send(call)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(Error::Unanswered),
        }
        Ok(call.primary_header().serial_num())
    }

    /// Calls a method of the bus itself.
    pub async fn ask_bus(&self, method: &str, argument: &str) -> Result<NonZeroU32, Error> {
        let call = Message::method_call("/org/freedesktop/DBus", method)
            .destination(BUS)
            .interface(BUS)
            .build(&argument)?;
        self.send(&call).await
    }

    /// The next message, in the order of sending. Nothing is lost where this is
    /// cancelled.
    ///
    /// # Errors
    /// Where the connection ended, or `deadline` passed before a message came.
    pub async fn next(&mut self, deadline: Option<Instant>) -> Result<Message, Error> {
        let next = self.messages.next();
        let message = match deadline {
            Some(deadline) => timeout_at(deadline, next)
                .await
                .map_err(|_| Error::Unanswered)?,
            None => next.await,
        };
        match message {
            Some(Ok(message)) => Ok(message),
            // The peer closed the socket: the usual end, which zbus reports as an
            // input error.
            Some(Err(zbus::Error::InputOutput(error)))
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                Err(Error::Peer(error.to_string()))
            }
            Some(Err(zbus::Error::InputOutput(_))) | None => Err(Error::Ended),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// The socket of an address that names one, and nothing else.
fn socket_of(address: &str) -> Option<&Path> {
    let path = address.strip_prefix("unix:path=")?;
    (!path.contains([',', ';', '%'])).then_some(Path::new(path))
}

async fn connected(socket: &Path, address: &str, names_senders: bool) -> Result<Private, Error> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|error| Error::Socket {
        address: address.to_owned(),
        error,
    })?;
    Ok(Private {
        stream,
        names_senders,
    })
}

/// The name of the bus itself, which no other sender can have.
pub const BUS: &str = "org.freedesktop.DBus";

/// A `NameOwnerChanged` of the bus.
pub struct NameOwnerChanged<'a> {
    pub name: &'a str,
    pub old: Option<UniqueName<'a>>,
    pub new: Option<UniqueName<'a>>,
}

impl<'a> NameOwnerChanged<'a> {
    /// Whether `message` is one, and from the bus itself.
    pub fn is(message: &Message) -> bool {
        let header = message.header();
        header.message_type() == Type::Signal
            && header.sender().is_some_and(|sender| sender.as_str() == BUS)
            && header
                .member()
                .is_some_and(|member| member.as_str() == "NameOwnerChanged")
    }

    /// Reads its body.
    pub fn read(body: &'a zbus::message::Body) -> Result<Self, Error> {
        let (name, old, new): (&str, &str, &str) = body.deserialize()?;
        Ok(NameOwnerChanged {
            name,
            old: UniqueName::try_from(old).ok(),
            new: UniqueName::try_from(new).ok(),
        })
    }
}

/// The reason in an error reply.
pub fn refusal(message: &Message) -> Error {
    let text = zbus::Error::from(message.clone()).to_string();
    Error::Refused(text)
}
