//! The scheduling of expensive steps, such as those of TLS handshakes, of which one may take a millisecond.
//!
//! Each turn of the worker first polls all tasks that have an event, and then one task that waits to make a step.
//! Tenants take turns, so that the steps of one tenant's clients delay no other's. What a tenant has begun comes before
//! what is new, so that it ends: new clients wait then, and no deadlines of the others pass.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::{Reactor, TaskId};

/// How many steps of what was begun come before a new one that waits.
const MOST_BEFORE_NEW: u8 = 8;

/// The tasks that wait to make a step, by tenant.
#[derive(Default)]
pub(super) struct StepQueue {
    tenants: RefCell<Tenants>,
    /// Whether the task that is being polled may make a step.
    granted: Cell<bool>,
}

/// What a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum StepOf {
    /// Something new.
    New,
    /// Something that was begun.
    Begun,
}

#[derive(Default)]
struct Tenants {
    /// Those with waiting tasks, by the hash of their names.
    waiting: HashMap<u64, WaitingTasks>,
    /// The order of their turns.
    order: VecDeque<u64>,
    hasher: RandomState,
}

/// The waiting tasks of a tenant.
#[derive(Default)]
struct WaitingTasks {
    new: VecDeque<TaskId>,
    begun: VecDeque<TaskId>,
    /// How many steps have come before the first new one.
    before_new: u8,
}

impl WaitingTasks {
    fn pop(&mut self) -> Option<TaskId> {
        if self.new.is_empty() || (!self.begun.is_empty() && self.before_new < MOST_BEFORE_NEW) {
            self.before_new = self.before_new.saturating_add(1);
            return self.begun.pop_front();
        }
        self.before_new = 0;
        self.new.pop_front()
    }

    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.begun.is_empty()
    }
}

impl StepQueue {
    fn push(&self, tenant: &str, of: StepOf, task: TaskId) {
        let mut tenants = self.tenants.borrow_mut();
        let tenant = tenants.hasher.hash_one(tenant);
        let tasks = tenants.waiting.entry(tenant).or_default();
        let is_new = tasks.is_empty();
        match of {
            StepOf::New => tasks.new.push_back(task),
            StepOf::Begun => tasks.begun.push_back(task),
        }
        if is_new {
            tenants.order.push_back(tenant);
        }
    }

    /// The first task of the tenant whose turn it is, which then comes last.
    fn pop(&self) -> Option<TaskId> {
        let mut tenants = self.tenants.borrow_mut();
        let tenant = tenants.order.pop_front()?;
        let tasks = tenants.waiting.get_mut(&tenant)?;
        let task = tasks.pop();
        match tasks.is_empty() {
            true => drop(tenants.waiting.remove(&tenant)),
            false => tenants.order.push_back(tenant),
        }
        task
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tenants.borrow().order.is_empty()
    }
}

impl Reactor {
    /// Whether the current task may make an expensive step now, which it then does. If not, it is polled again when
    /// it is the turn of `tenant`.
    pub(in crate::proxy) fn may_step(&self, tenant: &str, of: StepOf) -> bool {
        if self.steps.granted.take() {
            return true;
        }
        let current = self.current();
        if let Some(task) = self.tasks.borrow_mut().get_mut(current.index as usize)
            && !std::mem::replace(&mut task.awaits_step, true)
        {
            self.steps.push(tenant, of, current);
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

    #[test]
    fn tenants_take_turns_and_the_tasks_of_each_keep_their_order() {
        let queue = StepQueue::default();
        let push = |tenant, numbers: &[u32]| {
            numbers
                .iter()
                .for_each(|number| queue.push(tenant, StepOf::New, TaskId::of_test(*number)));
        };
        push("busy", &[1, 2, 3, 4]);
        push("quiet", &[10]);
        push("other", &[20, 21]);
        let mut order: Vec<_> = (0..4).filter_map(|_| queue.pop()).collect();
        push("quiet", &[11]);
        order.extend(std::iter::from_fn(|| queue.pop()));
        let expected = [1, 10, 20, 2, 21, 3, 11, 4].map(TaskId::of_test);
        assert_eq!(order, expected);
        assert!(queue.is_empty() && queue.tenants.borrow().waiting.is_empty());
    }

    #[test]
    fn what_was_begun_comes_first_but_not_for_ever() {
        let queue = StepQueue::default();
        let push = |of, number| queue.push("busy", of, TaskId::of_test(number));
        (0..4).for_each(|number| push(StepOf::New, number));
        (10..22).for_each(|number| push(StepOf::Begun, number));
        let order = (10..18).chain([0]).chain(18..22).chain(1..4).map(TaskId::of_test);
        assert!(std::iter::from_fn(|| queue.pop()).eq(order));
        assert!(queue.is_empty());
    }
}
