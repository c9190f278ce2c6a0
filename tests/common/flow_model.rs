//! The UDP flow table against a list that is searched from end to end.

use std::time::{Duration, Instant};

use super::flow_table::{FlowExpiry, FlowId, FlowTable};

/// One step; keys are few, so that they meet again.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum Step {
    /// A datagram of a client: finds its flow, or begins one where there is room.
    Request {
        key: u8,
    },
    /// A datagram of a backend.
    Reply {
        key: u8,
    },
    /// The flow ends for another reason.
    Remove {
        key: u8,
    },
    Wait {
        millis: u8,
    },
    /// A clock that went back a little, as one that was read before another may.
    Back {
        millis: u8,
    },
    Expire,
}

/// What the table is made with; 0 stands for no total timeout.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) struct Shape {
    pub(crate) capacity: u8,
    pub(crate) idle: u8,
    pub(crate) total: u8,
}

#[derive(Debug)]
struct Known {
    key: u8,
    id: FlowId,
    born: Instant,
    used: Instant,
    /// Orders uses of one moment.
    turn: u64,
    answered: bool,
}

/// Goes through the steps with both and compares after each.
///
/// # Panics
/// Where they differ.
pub(crate) fn compare(shape: Shape, steps: &[Step]) {
    let millis = |millis: u8| Duration::from_millis(u64::from(millis));
    let capacity = usize::from(shape.capacity).max(1);
    let idle = millis(shape.idle);
    let total = (shape.total != 0).then(|| millis(shape.total));
    let mut table = FlowTable::new(usize::from(shape.capacity), idle, total);
    let mut known: Vec<Known> = Vec::new();
    let mut dead: Vec<FlowId> = Vec::new();

    #[allow(clippy::disallowed_methods, reason = "any beginning serves")]
    let begin = Instant::now();
    // Far enough from the beginning that no step goes behind it.
    let mut clock = begin + Duration::from_secs(3600);
    let (mut latest, mut turn) = (begin, 0);
    for step in steps {
        turn += 1;
        match *step {
            Step::Wait { millis: by } => clock += millis(by),
            Step::Back { millis: by } => clock -= millis(by),
            Step::Request { key } => match (table.find(&key), position(&known, key)) {
                (Some(id), Some(at)) => {
                    assert_eq!(id, known[at].id);
                    latest = latest.max(clock);
                    table.touch(id, clock);
                    (known[at].used, known[at].turn) = (latest, turn);
                }
                (None, None) => {
                    let unanswered = known.iter().filter(|it| !it.answered);
                    let gives_way = unanswered.min_by_key(|it| (it.used, it.turn)).map(|it| it.key);
                    let full = known.len() == capacity;
                    match table.evict_if_full() {
                        Ok(None) => assert!(!full),
                        Ok(Some((key, value))) => {
                            assert!(full && gives_way == Some(key) && value == u32::from(key));
                            let at = position(&known, key).expect("just found");
                            dead.push(known.remove(at).id);
                        }
                        Err(_) => {
                            assert!(full && gives_way.is_none());
                            assert_eq!(table.insert(key, 0, clock), Err(0));
                            continue;
                        }
                    }
                    latest = latest.max(clock);
                    let id = table.insert(key, u32::from(key), clock).expect("there is room");
                    assert_eq!(FlowId::from_u64(id.to_u64()), id);
                    let answered = false;
                    known.push(Known { key, id, born: latest, used: latest, turn, answered });
                }
                (found, expected) => panic!("found {found:?}, expected {expected:?}"),
            },
            Step::Reply { key } => {
                if let Some(at) = position(&known, key) {
                    latest = latest.max(clock);
                    assert_eq!(table.mark_answered(known[at].id, clock), !known[at].answered);
                    let it = &mut known[at];
                    (it.used, it.turn, it.answered) = (latest, turn, true);
                }
            }
            Step::Remove { key } => {
                if let Some(at) = position(&known, key) {
                    let id = known.remove(at).id;
                    assert_eq!(table.remove(id), Some((key, u32::from(key))));
                    dead.push(id);
                }
            }
            Step::Expire => {
                let now = latest.max(clock);
                let ends = |it: &Known| {
                    (it.used + idle <= now, total.is_some_and(|total| it.born + total <= now))
                };
                while let Some((id, expiry)) = table.next_expired(clock) {
                    let at = known.iter().position(|it| it.id == id).expect("alive");
                    let (by_idle, by_total) = ends(&known[at]);
                    assert!(if expiry == FlowExpiry::Idle { by_idle } else { by_total });
                    assert!(table.remove(id).is_some());
                    dead.push(known.remove(at).id);
                }
                assert!(known.iter().all(|it| ends(it) == (false, false)));
            }
        }
        assert_eq!(table.len(), known.len());
        assert!(table.len() <= capacity);
        let first = known.iter().map(|it| {
            let by_idle = it.used + idle;
            total.map_or(by_idle, |total| by_idle.min(it.born + total))
        });
        assert_eq!(table.next_deadline(), first.min());
        assert!(known.iter().all(|it| table.get(it.id) == Some(&u32::from(it.key))));
        assert!(known.iter().all(|it| table.key(it.id) == Some(&it.key)));
        assert!(known.iter().all(|it| table.started_at(it.id) == Some(it.born)));
        assert_eq!(table.iter().count(), known.len());
        // A name that has ended names nobody, whoever has taken the place.
        assert!(dead.iter().all(|id| table.get_mut(*id).is_none()));
    }
}

fn position(known: &[Known], key: u8) -> Option<usize> {
    known.iter().position(|it| it.key == key)
}
