//! Telling the server what became of deliveries.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Subject, jetstream::AckKind};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Ack, Ready};

/// How soon what was given back comes to another: when the server has heard that we pull no more. Before, it would come back
/// to where nobody is, and rest there for as long as a delivery may take.
const NAK_DELAY: Duration = Duration::from_millis(100);
/// How long what is handled may take to be told when the process ends.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
/// Acks told at a time.
const ACKS: usize = 1_000;

/// Tells the server what became of a delivery. Dropped, it says that the event shall come again, to whoever is there: so ends
/// what was not begun when the process drains.
pub(crate) struct Receipt {
    pub(super) reply: Option<Subject>,
    pub(super) origin: Arc<Origin>,
}

/// Where deliveries come from.
pub(super) struct Origin {
    pub(super) ready: Ready,
    pub(super) now: watch::Receiver<Option<Ready>>,
    pub(super) acks: mpsc::UnboundedSender<Ack>,
}

impl Origin {
    /// Whether the stream is still the one that they are of. In one that was set back to an older copy others have their numbers,
    /// and it would take for handled what nobody has read.
    fn lasts(&self) -> bool {
        *self.now.borrow() == Some(self.ready)
    }
}

impl Receipt {
    pub(crate) fn done(mut self) {
        self.tell(AckKind::Ack);
    }

    pub(crate) fn laid_aside(mut self) {
        self.tell(AckKind::Term);
    }

    pub(crate) fn keep(&self) {
        if let Some(reply) = &self.reply {
            self.send(reply.clone(), AckKind::Progress);
        }
    }

    fn tell(&mut self, what: AckKind) {
        if let Some(reply) = self.reply.take() {
            self.send(reply, what);
        }
    }

    fn send(&self, reply: Subject, what: AckKind) {
        let ack = (self.origin.clone(), reply, what.into());
        let _the_process_ends = self.origin.acks.send(ack);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.tell(AckKind::Nak(Some(NAK_DELAY)));
    }
}

/// Tells the server what became of deliveries. Of these there are never more than the server lets be under way for each subscription,
/// which bounds the queue.
pub(super) async fn ack(
    client: Client,
    mut acks: mpsc::UnboundedReceiver<Ack>,
    closing: CancellationToken,
) -> anyhow::Result<()> {
    let mut some = Vec::with_capacity(ACKS);
    loop {
        tokio::select! {
            biased;
            count = acks.recv_many(&mut some, ACKS) => {
                if count == 0 {
                    break;
                }
                tell(&client, &mut some).await;
            }
            () = closing.cancelled() => break,
        }
    }
    closing.cancelled().await;
    while let Ok(ack) = acks.try_recv() {
        some.push(ack);
    }
    let told = async {
        tell(&client, &mut some).await;
        client.flush().await
    };
    if !matches!(timeout(FLUSH_WITHIN, told).await, Ok(Ok(()))) {
        tracing::debug!("NATS was not told what is handled: it comes again");
    }
    Ok(())
}

async fn tell(client: &Client, acks: &mut Vec<Ack>) {
    for (origin, reply, what) in acks.drain(..) {
        if origin.lasts() {
            let _the_client_ends = client.publish(reply, what).await;
        }
    }
}
