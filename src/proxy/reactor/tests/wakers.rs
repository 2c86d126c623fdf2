//! Tasks that are woken by something other than their sockets and deadlines.

use super::*;

#[test]
fn a_task_waits_for_another_thread() {
    let (told, tell) = oneshot::channel();
    let thread = thread::spawn(move || told.send(7));
    let got = run(|reactor| async move {
        // Nothing else would wake it.
        reactor.within(NEVER, tell).await
    });
    assert_eq!(got, Ok(Ok(7)));
    thread.join().unwrap().unwrap();
}

#[test]
fn a_sleeping_reactor_is_woken_for_each_message_of_another_thread() {
    const MESSAGES: u32 = 100;
    let (mut there, mut here) = channel::channel(0);
    let (mut answer, mut answers) = channel::channel(0);
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for number in 0..MESSAGES {
                there.send(number).await.unwrap();
                assert_eq!(answers.next().await, Some(number));
            }
        });
    });
    let sum = run(|_| async move {
        let mut sum = 0;
        while let Some(number) = here.next().await {
            sum += number;
            answer.send(number).await.unwrap();
        }
        sum
    });
    assert_eq!(sum, (0..MESSAGES).sum::<u32>());
    thread.join().unwrap();
}

#[test]
fn tasks_of_one_reactor_wake_each_other() {
    let order = run(|reactor| async move {
        let (mut to, mut from) = channel::unbounded();
        reactor.spawn(async move {
            for word in ["a", "b", "c"] {
                to.send(word).await.unwrap();
                // Lets the other task run in between.
                let mut polled = false;
                poll_fn(|context| match std::mem::replace(&mut polled, true) {
                    true => Poll::Ready(()),
                    false => {
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .await;
            }
        });
        let mut words = String::new();
        while let Some(word) = from.next().await {
            words.push_str(word);
        }
        words
    });
    assert_eq!(order, "abc");
}

#[test]
fn the_waker_of_an_ended_task_wakes_no_task() {
    run(|reactor| async move {
        let (keep, kept) = mpsc::channel();
        reactor.spawn(poll_fn(move |context| {
            keep.send(context.waker().clone()).unwrap();
            Poll::Ready(())
        }));
        let short = Duration::from_millis(40);
        assert_eq!(reactor.within(short, pending::<()>()).await, Err(Interrupted::Elapsed));
        let waker = kept.recv().unwrap();
        // This task has the index of the other.
        let polls = Rc::new(Cell::new(0));
        let counter = Rc::clone(&polls);
        reactor.spawn(poll_fn(move |_| {
            counter.set(counter.get() + 1);
            Poll::<()>::Pending
        }));
        waker.wake();
        assert_eq!(reactor.within(short, pending::<()>()).await, Err(Interrupted::Elapsed));
        assert_eq!(polls.get(), 1);
    });
}
