//! The scheduling of expensive steps, such as those of TLS handshakes, of which one may take a millisecond.
//!
//! Each turn of the worker first polls all tasks that have an event, and then one task that waits to make a step.
//! Tenants take turns, and so do the clients of each, so that the steps of one delay no other's for long. What a tenant
//! has begun comes before what is new, so that it ends: new clients wait then, and no deadlines of the others pass.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::{Reactor, TaskId};

/// How many steps of what was begun come before a new one that waits.
const MOST_BEFORE_NEW: u8 = 8;

/// The tasks that wait to make a step.
#[derive(Default)]
pub(super) struct StepQueue {
    /// By the hash of the tenant's name.
    tenants: RefCell<StepTurns<TenantSteps>>,
    hasher: RandomState,
    /// Whether the task that is being polled may make a step.
    granted: Cell<bool>,
}

/// Whose step it is.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct StepOwner<'a> {
    /// The tenant.
    pub(in crate::proxy) tenant: &'a str,
    /// What tells the client from others.
    pub(in crate::proxy) client: u128,
}

/// What a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum StepOf {
    /// Something new.
    New,
    /// Something that was begun.
    Begun,
}

/// Tasks that wait, in the order of their turns.
trait WaitingSteps: Default {
    fn pop(&mut self) -> Option<TaskId>;

    fn is_empty(&self) -> bool;
}

/// Queues that take turns. None of them is empty.
#[derive(Default)]
struct StepTurns<Q> {
    queues: HashMap<u64, Q>,
    /// The order of their turns.
    order: VecDeque<u64>,
}

/// The waiting tasks of a tenant, by the hash of the client.
#[derive(Default)]
struct TenantSteps {
    new: StepTurns<VecDeque<TaskId>>,
    begun: StepTurns<VecDeque<TaskId>>,
    /// How many steps have come before the first new one.
    before_new: u8,
}

impl WaitingSteps for VecDeque<TaskId> {
    fn pop(&mut self) -> Option<TaskId> {
        self.pop_front()
    }

    fn is_empty(&self) -> bool {
        VecDeque::is_empty(self)
    }
}

impl WaitingSteps for TenantSteps {
    fn pop(&mut self) -> Option<TaskId> {
        if self.new.is_empty() || (!self.begun.is_empty() && self.before_new < MOST_BEFORE_NEW) {
            self.before_new = self.before_new.saturating_add(1);
            return self.begun.pop();
        }
        self.before_new = 0;
        self.new.pop()
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.begun.is_empty()
    }
}

impl<Q: WaitingSteps> StepTurns<Q> {
    /// The queue of `key`, to which something is added. If it was empty, its turn comes last.
    fn queue(&mut self, key: u64) -> &mut Q {
        let queue = self.queues.entry(key).or_default();
        if queue.is_empty() {
            self.order.push_back(key);
        }
        queue
    }
}

impl<Q: WaitingSteps> WaitingSteps for StepTurns<Q> {
    /// The first task of the queue whose turn it is, which then comes last.
    fn pop(&mut self) -> Option<TaskId> {
        let key = self.order.pop_front()?;
        let queue = self.queues.get_mut(&key)?;
        let task = queue.pop();
        match queue.is_empty() {
            true => drop(self.queues.remove(&key)),
            false => self.order.push_back(key),
        }
        task
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl StepQueue {
    fn push(&self, owner: StepOwner<'_>, of: StepOf, task: TaskId) {
        let mut tenants = self.tenants.borrow_mut();
        let tenant = tenants.queue(self.hasher.hash_one(owner.tenant));
        let clients = match of {
            StepOf::New => &mut tenant.new,
            StepOf::Begun => &mut tenant.begun,
        };
        clients.queue(self.hasher.hash_one(owner.client)).push_back(task);
    }

    fn pop(&self) -> Option<TaskId> {
        self.tenants.borrow_mut().pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenants.borrow().is_empty()
    }
}

impl Reactor {
    /// Whether the current task may make an expensive step now, which it then does. If not, it is polled again when
    /// it is the turn of `owner`.
    pub(in crate::proxy) fn may_step(&self, owner: StepOwner<'_>, of: StepOf) -> bool {
        if self.steps.granted.take() {
            return true;
        }
        let current = self.current();
        if let Some(task) = self.tasks.borrow_mut().get_mut(current.index as usize)
            && !std::mem::replace(&mut task.awaits_step, true)
        {
            self.steps.push(owner, of, current);
        }
        false
    }

    /// Polls the next task that waits to make a step, and has not ended.
    pub(super) fn run_step(&self) {
        while let Some(id) = self.steps.pop() {
            let waits = match self.tasks.borrow_mut().get_mut(id.index as usize) {
                Some(task) if task.serial == id.serial => std::mem::take(&mut task.awaits_step),
                _ => false,
            };
            if waits {
                self.steps.granted.set(true);
                self.poll_task(id);
                self.steps.granted.set(false);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all tasks.
    fn drain(queue: &StepQueue) -> Vec<TaskId> {
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.is_empty() && queue.tenants.borrow().queues.is_empty());
        order
    }

    fn tasks(numbers: impl IntoIterator<Item = u32>) -> Vec<TaskId> {
        numbers.into_iter().map(TaskId::of_test).collect()
    }

    #[test]
    fn tenants_take_turns_and_the_tasks_of_each_client_keep_their_order() {
        let queue = StepQueue::default();
        let push = |tenant, numbers: &[u32]| {
            let owner = StepOwner { tenant, client: 1 };
            numbers
                .iter()
                .for_each(|number| queue.push(owner, StepOf::New, TaskId::of_test(*number)));
        };
        push("busy", &[1, 2, 3, 4]);
        push("quiet", &[10]);
        push("other", &[20, 21]);
        let mut order: Vec<_> = (0..4).filter_map(|_| queue.pop()).collect();
        push("quiet", &[11]);
        order.extend(drain(&queue));
        assert_eq!(order, tasks([1, 10, 20, 2, 21, 3, 11, 4]));
    }

    #[test]
    fn clients_of_a_tenant_take_turns() {
        let queue = StepQueue::default();
        let push = |client, of, number| {
            let owner = StepOwner { tenant: "busy", client };
            queue.push(owner, of, TaskId::of_test(number));
        };
        (0..4).for_each(|number| push(1, StepOf::New, number));
        push(2, StepOf::New, 10);
        assert_eq!(drain(&queue), tasks([0, 10, 1, 2, 3]));
        (0..4).for_each(|number| push(1, StepOf::Begun, number));
        push(2, StepOf::Begun, 10);
        assert_eq!(drain(&queue), tasks([0, 10, 1, 2, 3]));
    }

    #[test]
    fn what_was_begun_comes_first_but_not_for_ever() {
        let queue = StepQueue::default();
        let owner = StepOwner { tenant: "busy", client: 1 };
        let push = |of, number| queue.push(owner, of, TaskId::of_test(number));
        (0..4).for_each(|number| push(StepOf::New, number));
        (10..22).for_each(|number| push(StepOf::Begun, number));
        assert_eq!(drain(&queue), tasks((10..18).chain([0]).chain(18..22).chain(1..4)));
    }
}
