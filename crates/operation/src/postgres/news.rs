//! Notifications of commits between replicas, with `NOTIFY` and `LISTEN`.
//!
//! A message is `INSTANCE NEWS NEWS ...`. Each piece of news is `q:LANE` (a task can be claimed), `s:TOKEN` (a stop
//! was requested) or `f:TOKEN` (a task has ended). A replica ignores its own messages, because it has notified itself
//! already.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{sleep, timeout};

use super::{Connections, with_timeout};
use crate::ledger::sql::args;
use crate::operation::Lane;
use crate::store::Hint;

/// News that wait to be sent; further ones are lost, which is allowed for hints.
pub(super) const NEWS_QUEUE: usize = 4096;
const CHANNEL: &str = "landfall";
/// News in one message: PostgreSQL allows 8,000 bytes.
const BATCH: usize = 150;
/// After this time without a message, the listener checks whether the server is still there.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause between two attempts to listen.
const PAUSE: Duration = Duration::from_millis(500);

/// Notifies other replicas, with many pieces of news in one message.
pub(super) async fn notify_replicas(
    connections: Arc<Connections>,
    mut news: mpsc::Receiver<Hint>,
    instance: String,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while news.recv_many(&mut batch, BATCH).await > 0 {
        let message = encode(&instance, batch.drain(..));
        if let Err(error) = connections.read("SELECT pg_notify($1, $2)", args![CHANNEL, &message]).await {
            log::debug!("other replicas were not notified: {error}");
        }
    }
}

/// Forwards notifications of other replicas to `hints`. Sends [`Hint::Anything`] after each connection, because
/// notifications may have been missed before it.
pub(super) async fn listen(
    pool: PgPool,
    hints: broadcast::Sender<Hint>,
    instance: String,
    patience: Duration,
) {
    let mut quiet = false;
    loop {
        match with_timeout(patience, connect(&pool)).await {
            Ok(listener) => {
                if std::mem::take(&mut quiet) {
                    log::info!("news of other replicas come in again");
                }
                // An error means that there are no listeners, here and below.
                let _ = hints.send(Hint::Anything);
                hear(listener, &hints, &instance, patience).await;
            }
            Err(error) if !quiet => {
                quiet = true;
                log::warn!("no news of other replicas until PostgreSQL answers again: {error}");
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

async fn connect(pool: &PgPool) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Listens until the connection is lost.
async fn hear(mut listener: PgListener, hints: &broadcast::Sender<Hint>, instance: &str, patience: Duration) {
    loop {
        match timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                for hint in decode(instance, notification.payload()) {
                    let _ = hints.send(hint);
                }
            }
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => {
                if with_timeout(patience, sqlx::query("SELECT 1").execute(&mut listener)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn encode(instance: &str, news: impl Iterator<Item = Hint>) -> String {
    let pieces: BTreeSet<String> = news
        .map(|hint| match hint {
            Hint::Queued(lane) => format!("q:{}", lane.as_str()),
            Hint::Stop(token) => format!("s:{token}"),
            Hint::Finished(token) => format!("f:{token}"),
            Hint::Anything => "?".to_owned(),
        })
        .collect();
    pieces.into_iter().fold(instance.to_owned(), |message, piece| message + " " + &piece)
}

/// The hints in a message; empty if this replica sent it. Unreadable news becomes [`Hint::Anything`], because
/// another version may send more kinds.
fn decode(instance: &str, message: &str) -> Vec<Hint> {
    let mut pieces = message.split(' ');
    if pieces.next() == Some(instance) {
        return Vec::new();
    }
    pieces.map(|piece| piece_of_news(piece).unwrap_or(Hint::Anything)).collect()
}

fn piece_of_news(piece: &str) -> Option<Hint> {
    let (kind, what) = piece.split_once(':')?;
    match kind {
        "q" => Lane::ALL.into_iter().find(|lane| lane.as_str() == what).map(Hint::Queued),
        "s" => what.parse().ok().map(Hint::Stop),
        "f" => what.parse().ok().map(Hint::Finished),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[test]
    fn each_notification_is_read_once_as_sent() {
        let (a, b) = (Token::random(), Token::random());
        let news = [
            Hint::Queued(Lane::Change),
            Hint::Stop(a),
            Hint::Queued(Lane::Change),
            Hint::Finished(b),
            Hint::Anything,
        ];
        let message = encode("me", news.into_iter());
        let mut heard = decode("other", &message);
        heard.sort_by_key(|hint| format!("{hint:?}"));
        let mut expected = vec![Hint::Queued(Lane::Change), Hint::Stop(a), Hint::Finished(b), Hint::Anything];
        expected.sort_by_key(|hint| format!("{hint:?}"));
        assert_eq!(heard, expected);
        assert_eq!(decode("me", &message), []);
    }

    #[test]
    fn unreadable_notifications_wake_every_listener() {
        for piece in ["x:y", "q:nowhere", "s:", "f", "s:not-a-token"] {
            assert_eq!(decode("other", &format!("me {piece}")), [Hint::Anything], "{piece}");
        }
        assert_eq!(decode("other", ""), []);
    }

    #[test]
    fn full_notification_fits_into_postgresqls_limit() {
        let news = (0..BATCH).map(|_| Hint::Finished(Token::random()));
        let instance = uuid::Uuid::new_v4().simple().to_string();
        assert!(encode(&instance, news).len() < 8000);
    }
}
