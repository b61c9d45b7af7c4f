//! The program's own events, made with `tracing`'s macros, on their way to the
//! journal: queued here, so that a stalled reader does not block their sender.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{SetGlobalDefaultError, set_global_default};
use tracing::{Dispatch, Event, Level, Subscriber, dispatcher};
use tracing_journald::{Priority as Severity, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use super::Journal;
use super::queue::{Diagnostic, Item, Queue};
use crate::background::Mailbox;
use crate::journal::entry::{IDENTIFIER, LONGEST};
use crate::model::text::visible_lines;
use crate::words::{clip, without_numbers};

/// Sends the program's events to `journal` from now on: its own at INFO and
/// above, those of the crates it uses at WARN and above.
///
/// # Errors
/// Where this process has a subscriber already.
pub fn install(journal: &Journal) -> Result<(), SetGlobalDefaultError> {
    set_global_default(subscriber(journal.queue()))
}

pub(super) fn subscriber(queue: Arc<Mailbox<Queue>>) -> impl Subscriber + Send + Sync {
    let filter = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO)
        .with_default(LevelFilter::WARN);
    registry().with(filter).with(ToQueue(queue))
}

impl Diagnostic {
    fn of(event: &Event<'_>) -> Diagnostic {
        let mut text = Text::default();
        event.record(&mut text);
        let text = without_numbers(&(text.message + &text.fields));
        Diagnostic {
            metadata: event.metadata(),
            text: visible_lines(clip(text.trim(), LONGEST)).into_owned(),
        }
    }
}

struct ToQueue(Arc<Mailbox<Queue>>);

impl<S: Subscriber> Layer<S> for ToQueue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let diagnostic = Diagnostic::of(event);
        self.0.push(Item::Diagnostic(Box::new(diagnostic)));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Not in quotes, as Debug would have it.
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// tracing-journald, fed on the journal's thread.
#[derive(Debug, Default)]
pub(super) struct Journald(Option<Dispatch>);

impl Journald {
    /// Sends `diagnostic` with the level, target, file and line it was made with.
    ///
    /// # Errors
    /// Where journald cannot be reached at the first time. Later ones are not
    /// noticed: tracing-journald does not return errors.
    pub fn send(&mut self, diagnostic: &Diagnostic) -> io::Result<()> {
        let dispatch = match &self.0 {
            Some(dispatch) => dispatch,
            None => self.0.insert(dispatch()?),
        };
        let metadata = diagnostic.metadata;
        let text = diagnostic.text.as_str();
        match metadata.fields().field("message") {
            Some(message) => {
                let value: &dyn tracing::Value = &text;
                let values = [(&message, Some(value))];
                dispatch.event(&Event::new(metadata, &metadata.fields().value_set(&values)));
            }
            // An event of fields alone has no place for a message: make one.
            None => dispatcher::with_default(dispatch, || match *metadata.level() {
                Level::ERROR => tracing::error!("{text}"),
                Level::WARN => tracing::warn!("{text}"),
                _ => tracing::info!("{text}"),
            }),
        }
        Ok(())
    }
}

fn dispatch() -> io::Result<Dispatch> {
    let journald = tracing_journald::layer()?
        .with_syslog_identifier(IDENTIFIER.to_owned())
        .with_priority_mappings(PriorityMappings {
            info: Severity::Informational,
            ..PriorityMappings::new()
        });
    // Without the filter, every disabled event of the process would be asked
    // about again from now on.
    Ok(Dispatch::new(
        registry().with(LevelFilter::INFO).with(journald),
    ))
}

#[cfg(test)]
impl Diagnostic {
    /// A diagnostic with this text, made as the program makes them.
    pub(super) fn for_test(text: &str) -> Diagnostic {
        let queue = Arc::new(Mailbox::new(Queue::new()));
        tracing::subscriber::with_default(subscriber(Arc::clone(&queue)), || {
            tracing::warn!("{text}");
        });
        match queue.pop().map(|queued| queued.item) {
            Some(Item::Diagnostic(diagnostic)) => *diagnostic,
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::entry::Priority;

    #[test]
    fn what_is_reported_depends_on_who_says_it() {
        let queue = Arc::new(Mailbox::new(Queue::new()));
        tracing::subscriber::with_default(subscriber(Arc::clone(&queue)), || {
            tracing::info!(target: "netguard::sources", key = "a b", n = 3, "ours {}", 1);
            tracing::debug!(target: "netguard::sources", "too fine");
            tracing::info!(target: "zbus", "not ours");
            tracing::warn!(target: "zbus", "worth it\u{1b}[2J\u{202e}");
        });
        let next = || match queue.pop().map(|queued| queued.item) {
            Some(Item::Diagnostic(diagnostic)) => (diagnostic.priority(), diagnostic.text),
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), (Priority::Info, "ours 1 key=a b n=3".to_owned()));
        assert_eq!(
            next(),
            (Priority::Warning, r"worth it\u{1b}[2J\u{202e}".to_owned())
        );
    }
}
