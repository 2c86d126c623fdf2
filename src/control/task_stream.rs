//! The output of a task, as a stream.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinHandle};

/// What a task sends, as a stream that ends with it. If the task panics, polling the stream panics, so that the caller
/// can restart both.
#[derive(Debug)]
pub struct TaskStream<T> {
    sent: UnboundedReceiver<T>,
    /// The task; `None` after its end.
    task: Option<JoinHandle<()>>,
}

impl<T> TaskStream<T> {
    /// What `task` sends to the other end of `sent`.
    pub(super) fn new(sent: UnboundedReceiver<T>, task: JoinHandle<()>) -> Self {
        TaskStream { sent, task: Some(task) }
    }
}

impl<T> Stream for TaskStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        match self.sent.poll_recv(context) {
            Poll::Ready(None) => {}
            sent => return sent,
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(task).poll(context));
        self.task = None;
        match ended.map_err(JoinError::try_into_panic) {
            Err(Ok(panic)) => resume_unwind(panic),
            Ok(()) | Err(Err(_)) => Poll::Ready(None),
        }
    }
}
