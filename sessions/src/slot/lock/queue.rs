//! The waiters of a lock, in the order in which they came. A waiter that leaves costs the same
//! wherever in the queue it stands, and however long the queue is: clients hang up when they like.

/// Stands for no node.
const NONE: usize = usize::MAX;

/// An empty queue keeps room for this many waiters, and gives back what is more.
const KEPT_ROOM: usize = 8;

/// A list that is linked both ways, in one array whose free nodes are linked as well.
pub(crate) struct Queue<W> {
    nodes: Vec<Node<W>>,
    first: usize,
    last: usize,
    free: usize,
    len: usize,
    next_number: u64,
}

struct Node<W> {
    /// `None` in a free node.
    waiter: Option<W>,
    /// Tells a waiter from the next one that has the same node.
    number: u64,
    before: usize,
    /// In a free node: the next free one.
    behind: usize,
}

/// A place in a queue.
#[derive(Clone, Copy)]
pub(crate) struct Ticket {
    node: usize,
    number: u64,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { nodes: Vec::new(), first: NONE, last: NONE, free: NONE, len: 0, next_number: 0 }
    }
}

impl<W> Queue<W> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn front(&self) -> Option<&W> {
        self.nodes.get(self.first)?.waiter.as_ref()
    }

    pub(crate) fn push(&mut self, waiter: W) -> Ticket {
        let number = self.next_number;
        let node = Node { waiter: Some(waiter), number, before: self.last, behind: NONE };
        let at = match self.free {
            NONE => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
            free => {
                self.free = self.nodes[free].behind;
                self.nodes[free] = node;
                free
            }
        };
        match self.last {
            NONE => self.first = at,
            last => self.nodes[last].behind = at,
        }
        self.last = at;
        self.len += 1;
        self.next_number += 1;
        Ticket { node: at, number }
    }

    pub(crate) fn pop(&mut self) -> Option<W> {
        let first = self.nodes.get(self.first)?;
        self.remove(Ticket { node: self.first, number: first.number })
    }

    /// Takes out the waiter that has this ticket, if it is still here.
    pub(crate) fn remove(&mut self, Ticket { node: at, number }: Ticket) -> Option<W> {
        let node = self.nodes.get_mut(at).filter(|node| node.number == number)?;
        let waiter = node.waiter.take()?;
        let (before, behind) = (node.before, node.behind);
        node.behind = self.free;
        self.free = at;
        match before {
            NONE => self.first = behind,
            before => self.nodes[before].behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => self.nodes[behind].before = before,
        }
        self.len -= 1;
        if self.len == 0 && self.nodes.capacity() > KEPT_ROOM {
            *self = Self { next_number: self.next_number, ..Self::default() };
        }
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Each of twenty thousand random changes has to do what it does to a plain list.
    #[test]
    fn agrees_with_a_list() {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let (mut queue, mut list, mut gone) = (Queue::default(), VecDeque::new(), Vec::new());
        for number in 0..20_000 {
            // Long and short by turns.
            let grows = number / 500 % 2 == 0;
            match next(if grows { 6 } else { 3 }) {
                0 => {
                    let first = list.pop_front();
                    assert_eq!(queue.pop(), first.map(|(number, _)| number));
                    gone.extend(first.map(|(_, ticket)| ticket));
                }
                1 if !list.is_empty() => {
                    let (number, ticket) = list.remove(next(list.len())).unwrap();
                    assert_eq!(queue.remove(ticket), Some(number));
                    gone.push(ticket);
                }
                _ if grows => list.push_back((number, queue.push(number))),
                _ => {}
            }
            assert_eq!(queue.front(), list.front().map(|(number, _)| number));
            assert_eq!((queue.len(), queue.is_empty()), (list.len(), list.is_empty()));
            if let Some(ticket) = gone.get(next(gone.len() + 1)) {
                assert_eq!(queue.remove(*ticket), None, "another one has that node by now");
            }
        }
        assert!(gone.len() > 5_000, "the test has something to look at");
    }

    #[test]
    fn an_empty_queue_gives_its_memory_back() {
        let mut queue = Queue::default();
        let tickets: Vec<_> = (0..1_000).map(|number| queue.push(number)).collect();
        for ticket in tickets {
            assert!(queue.remove(ticket).is_some());
        }
        assert!(queue.nodes.capacity() <= KEPT_ROOM);
        // What was given out before the memory went is still worth nothing.
        let old = Ticket { node: 0, number: 0 };
        queue.push(7);
        assert_eq!(queue.remove(old), None);
        assert_eq!(queue.pop(), Some(7));
    }
}
