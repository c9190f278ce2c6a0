//! A model of the UDP flow table: a list with linear search, compared with the table after each
//! step.

use std::time::{Duration, Instant};

use super::flow_table::{FlowExpiry, FlowId, FlowTable};

/// A step of a test; few keys are used, so that they repeat.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum Step {
    /// A datagram of a client: finds its flow, or starts a flow if there is room.
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
    /// A flow is given up, for want of a descriptor.
    GiveUp,
    Wait {
        millis: u8,
    },
    /// The clock goes back a little, as a clock value that was read earlier does.
    Back {
        millis: u8,
    },
    Expire,
}

/// The parameters of the table; 0 stands for no total timeout.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) struct Shape {
    pub(crate) capacity: u8,
    pub(crate) idle: u8,
    pub(crate) total: u8,
}

#[derive(Debug)]
struct ModelFlow {
    key: u8,
    id: FlowId,
    started_at: Instant,
    last_used: Instant,
    /// Orders uses at the same time.
    turn: u64,
    answered: bool,
}

/// Applies the steps to the table and to the model, and compares them after each step.
///
/// # Panics
/// If table and model differ.
pub(crate) fn compare(shape: Shape, steps: &[Step]) {
    let millis = |millis: u8| Duration::from_millis(u64::from(millis));
    let capacity = usize::from(shape.capacity).max(1);
    let idle = millis(shape.idle);
    let total = (shape.total != 0).then(|| millis(shape.total));
    let mut table = FlowTable::new(capacity, idle, total);
    let mut flows: Vec<ModelFlow> = Vec::new();
    let mut ended: Vec<FlowId> = Vec::new();

    #[allow(clippy::disallowed_methods, reason = "any start time serves")]
    let start = Instant::now();
    // Far enough from the start that no step goes back before the start.
    let mut clock = start + Duration::from_secs(3600);
    let (mut latest, mut turn) = (start, 0);
    for step in steps {
        turn += 1;
        match *step {
            Step::Wait { millis: by } => clock += millis(by),
            Step::Back { millis: by } => clock -= millis(by),
            Step::Request { key } => match (table.find(&key), position(&flows, key)) {
                (Some(id), Some(at)) => {
                    assert_eq!(id, flows[at].id);
                    latest = latest.max(clock);
                    table.touch(id, clock);
                    (flows[at].last_used, flows[at].turn) = (latest, turn);
                }
                (None, None) => {
                    let unanswered = flows.iter().filter(|flow| !flow.answered);
                    let evictable = unanswered
                        .min_by_key(|flow| (flow.last_used, flow.turn))
                        .map(|flow| flow.key);
                    let full = flows.len() == capacity;
                    match table.evict_if_full() {
                        Ok(None) => assert!(!full),
                        Ok(Some((key, value))) => {
                            assert!(full && evictable == Some(key) && value == u32::from(key));
                            let at = position(&flows, key).expect("just found");
                            ended.push(flows.remove(at).id);
                        }
                        Err(_) => {
                            assert!(full && evictable.is_none());
                            assert_eq!(table.insert(key, 0, clock), Err(0));
                            continue;
                        }
                    }
                    latest = latest.max(clock);
                    let id = table.insert(key, u32::from(key), clock).expect("there is room");
                    assert_eq!(FlowId::from_u64(id.to_u64()), id);
                    let answered = false;
                    flows.push(ModelFlow {
                        key,
                        id,
                        started_at: latest,
                        last_used: latest,
                        turn,
                        answered,
                    });
                }
                (found, expected) => panic!("found {found:?}, expected {expected:?}"),
            },
            Step::Reply { key } => {
                if let Some(at) = position(&flows, key) {
                    latest = latest.max(clock);
                    assert_eq!(table.mark_answered(flows[at].id, clock), !flows[at].answered);
                    let flow = &mut flows[at];
                    (flow.last_used, flow.turn, flow.answered) = (latest, turn, true);
                }
            }
            Step::Remove { key } => {
                if let Some(at) = position(&flows, key) {
                    let id = flows.remove(at).id;
                    assert_eq!(table.remove(id), Some((key, u32::from(key))));
                    ended.push(id);
                }
            }
            Step::GiveUp => {
                let idlest = flows
                    .iter()
                    .min_by_key(|flow| (flow.last_used, flow.answered, flow.turn))
                    .filter(|flow| flow.last_used < clock)
                    .map(|flow| flow.key);
                assert_eq!(table.evict_idlest(clock).map(|(key, _)| key), idlest);
                if let Some(at) = idlest.and_then(|key| position(&flows, key)) {
                    ended.push(flows.remove(at).id);
                }
            }
            Step::Expire => {
                let now = latest.max(clock);
                let ends = |flow: &ModelFlow| {
                    (
                        flow.last_used + idle <= now,
                        total.is_some_and(|total| flow.started_at + total <= now),
                    )
                };
                while let Some((id, expiry)) = table.next_expired(clock) {
                    let at = flows.iter().position(|flow| flow.id == id).expect("alive");
                    let (by_idle, by_total) = ends(&flows[at]);
                    assert!(if expiry == FlowExpiry::Idle { by_idle } else { by_total });
                    assert!(table.remove(id).is_some());
                    ended.push(flows.remove(at).id);
                }
                assert!(flows.iter().all(|flow| ends(flow) == (false, false)));
            }
        }
        assert_eq!(table.len(), flows.len());
        assert!(table.len() <= capacity);
        let first = flows.iter().map(|flow| {
            let by_idle = flow.last_used + idle;
            total.map_or(by_idle, |total| by_idle.min(flow.started_at + total))
        });
        assert_eq!(table.next_deadline(), first.min());
        assert!(flows.iter().all(|flow| table.get(flow.id) == Some(&u32::from(flow.key))));
        assert!(flows.iter().all(|flow| table.key(flow.id) == Some(&flow.key)));
        assert!(flows.iter().all(|flow| table.started_at(flow.id) == Some(flow.started_at)));
        assert_eq!(table.iter().count(), flows.len());
        // The id of an ended flow finds no flow, even if its slot is in use again.
        assert!(ended.iter().all(|id| table.get_mut(*id).is_none()));
    }
}

fn position(flows: &[ModelFlow], key: u8) -> Option<usize> {
    flows.iter().position(|flow| flow.key == key)
}
