//! Ending shares: from the command until the claim is neither on disk nor in the node's table.
//!
//! The disk comes first. A claim whose end cannot be saved (on a read-only disk, for example) would return with the next start.
//! So the node continues to share the file, and reports the failure. For a file that is shared from several paths, the claims end
//! one by one.

use super::{ShareEvent, manifest_of};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Place};
use crate::manifest::Manifest;
use crate::node::command::{CommandId, FailureReason, Reply};
use crate::node::machines::Machines;
use crate::node::{Waiting, status};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A removal asks the disk for one thing at a time, and ends with its last claim or its first failure.
const NO_REMOVAL: &str = "no removal waits for the disk";

/// A removal under way.
struct Removal {
    hash: Key,
    /// The path whose claim the disk ends next, and those that follow.
    places: VecDeque<Place>,
    /// The manifest, from which follow the pieces that leave replication.
    manifest: Option<Arc<Manifest>>,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Reading the manifest.
    Manifest,
    /// Ending the claim of the first path.
    Claim,
}

/// All removals.
#[derive(Default)]
pub(in crate::node) struct Removals {
    under_way: BTreeMap<CommandId, Removal>,
}

impl Removals {
    /// A command to stop sharing a file, from all paths.
    pub(in crate::node) fn start(&mut self, id: CommandId, hash: Key, machines: &mut Machines) {
        let Some(shared) = machines.store.shared(&hash) else {
            let message = format!("this node does not share {hash}: `elver ls` shows what it shares");
            return machines.fail(id, FailureReason::NotFound, message);
        };
        let places = machines.store.records(&hash).into_iter().map(|share| share.place).collect();
        let mut removal = Removal { hash, places, manifest: None, step: Step::Claim };
        if shared.replicas > 0 && !shared.layout.is_single() {
            // The cached file is deleted with its last claim.
            removal.step = Step::Manifest;
            machines.disk(DiskOp::Read(manifest_of(&shared)), Waiting::Unshare(id));
            self.under_way.insert(id, removal);
        } else {
            self.under_way.insert(id, removal);
            self.end_next(id, machines);
        }
    }

    /// A disk operation of a removal ended.
    pub(in crate::node) fn handle_disk(
        &mut self,
        id: CommandId,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let Some(removal) = self.under_way.get_mut(&id) else { return debug_assert!(false, "{NO_REMOVAL}") };
        match (removal.step, result) {
            (Step::Manifest, result) => {
                if let Ok(DiskReply::Bytes(bytes)) = result {
                    removal.manifest = Manifest::decode(&bytes, &removal.hash).ok().map(Arc::new);
                }
                removal.step = Step::Claim;
            }
            (Step::Claim, Ok(_)) => removal.claim_ended(machines),
            (Step::Claim, Err(error)) => return self.fail(id, &error, machines),
        }
        self.end_next(id, machines);
    }

    /// Tells the disk to end the next claim, if there is one.
    fn end_next(&mut self, id: CommandId, machines: &mut Machines) {
        let Some(removal) = self.under_way.get_mut(&id) else { return debug_assert!(false, "{NO_REMOVAL}") };
        while let Some(place) = removal.places.front() {
            let last = machines.store.claims(&removal.hash).len() == 1;
            match machines.store.record(&removal.hash, place) {
                Some(share) => {
                    return machines.disk(DiskOp::RemoveShare { share, last }, Waiting::Unshare(id));
                }
                // The claim ended meanwhile, in another way.
                None => drop(removal.places.pop_front()),
            }
        }
        let hash = removal.hash;
        self.under_way.remove(&id);
        machines.done(id, Reply::Remove { hash });
    }

    fn fail(&mut self, id: CommandId, error: &DiskError, machines: &mut Machines) {
        let Some(removal) = self.under_way.remove(&id) else { return debug_assert!(false, "{NO_REMOVAL}") };
        let place = removal.places.front().map(|place| machines.path_of(place)).unwrap_or_default();
        let message = format!("{error}; {} is still shared from {}", removal.hash, place.display());
        machines.fail(id, status::failure_of(error), message);
    }
}

impl Removal {
    /// The claim has ended on disk: it ends in the table, too.
    fn claim_ended(&mut self, machines: &mut Machines) {
        let Some(place) = self.places.pop_front() else { return debug_assert!(false, "a claim was ended") };
        let (served, shared) =
            (machines.store.source(&self.hash).is_some(), machines.store.shared(&self.hash));
        machines.store.end_claim(&self.hash, &place);
        let over = served && machines.store.source(&self.hash).is_none();
        if let Some(shared) = shared.filter(|_| over) {
            let (why, manifest) = ("it is not shared any more".to_owned(), self.manifest.take());
            machines.share_events.push_back(ShareEvent::Withdrawn { shared, why, manifest });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{DiskErrorKind, FileStamp, Share, ShareState};
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
    use crate::node::Output;
    use crate::node::command::Response;
    use crate::time::Instant;

    const RM: CommandId = CommandId(1);

    fn manifest(chunks: usize) -> Arc<Manifest> {
        let bytes = vec![7; chunks * CHUNK_BYTES_MIN as usize];
        let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
        builder.update(&bytes);
        Arc::new(builder.finish().unwrap())
    }

    struct Bench {
        machines: Machines,
        removals: Removals,
        manifest: Arc<Manifest>,
    }

    impl Bench {
        /// A node that shares a file from these paths.
        fn new(chunks: usize, paths: &[&str]) -> Bench {
            let (mut machines, manifest) = (Machines::alone(Instant::from_secs(1)), manifest(chunks));
            for path in paths {
                let share = Share {
                    hash: manifest.hash(),
                    length: manifest.length(),
                    place: Place::File(Arc::from(std::path::Path::new(path))),
                    stamp: FileStamp::default(),
                    state: ShareState::Present,
                    replicas: 3,
                    lifetime: 60,
                    replicated: true,
                    synced: true,
                };
                machines.store.claim(&share, Some(&manifest)).unwrap();
            }
            Bench { machines, removals: Removals::default(), manifest }
        }

        fn start(&mut self) {
            self.removals.start(RM, self.manifest.hash(), &mut self.machines);
        }

        /// Answers the disk operation under way, and returns it.
        fn answer(&mut self, result: Result<DiskReply, DiskError>) -> DiskOp {
            let Some(Output::Disk { id, op }) = self.machines.outputs.pop_front() else {
                panic!("nothing is asked of the disk")
            };
            assert!(matches!(self.machines.disk_waiting.remove(&id), Some(Waiting::Unshare(RM))));
            self.removals.handle_disk(RM, result, &mut self.machines);
            op
        }

        /// The result of the command.
        fn ended(&mut self) -> Result<(), String> {
            match self.machines.outputs.pop_front() {
                Some(Output::Respond { response: Response::Done(Reply::Remove { .. }), .. }) => Ok(()),
                Some(Output::Respond { response: Response::Failed(failure), .. }) => Err(failure.message),
                other => panic!("{other:?}"),
            }
        }

        fn is_shared(&self) -> bool {
            self.machines.store.source(&self.manifest.hash()).is_some()
        }
    }

    fn read_only() -> Result<DiskReply, DiskError> {
        let message = "cannot write /dir/shares.log: Read-only file system".to_owned();
        Err(DiskError { kind: DiskErrorKind::Denied, message })
    }

    #[test]
    fn a_share_ends_once_the_disk_has_its_end() {
        let mut bench = Bench::new(1, &["/a"]);
        bench.start();
        assert!(bench.is_shared());
        let op = bench.answer(Ok(DiskReply::Done));
        assert!(matches!(op, DiskOp::RemoveShare { last: true, .. }), "{op:?}");
        assert_eq!(bench.ended(), Ok(()));
        assert!(!bench.is_shared());
        assert!(matches!(bench.machines.share_events.pop_front(), Some(ShareEvent::Withdrawn { .. })));
    }

    #[test]
    fn the_user_is_told_of_a_disk_that_cannot_end_a_share() {
        let mut bench = Bench::new(1, &["/a"]);
        bench.start();
        bench.answer(read_only());
        let said = bench.ended().unwrap_err();
        assert!(
            said.contains("Read-only file system; ") && said.ends_with("is still shared from /a"),
            "{said}"
        );
        assert!(bench.is_shared() && bench.machines.share_events.is_empty());
        // A later attempt may succeed.
        bench.start();
        bench.answer(Ok(DiskReply::Done));
        assert_eq!(bench.ended(), Ok(()));
        assert!(!bench.is_shared());
    }

    #[test]
    fn of_several_paths_each_ends_by_itself_and_the_manifest_goes_with_the_last() {
        let mut bench = Bench::new(2, &["/a", "/b"]);
        bench.start();
        let encoded = bench.manifest.encode();
        assert!(matches!(bench.answer(Ok(DiskReply::Bytes(encoded))), DiskOp::Read(_)));
        let first = bench.answer(Ok(DiskReply::Done));
        assert!(matches!(first, DiskOp::RemoveShare { last: false, .. }), "{first:?}");
        assert!(bench.machines.share_events.is_empty(), "it is served from the other path");
        bench.answer(read_only());
        assert!(bench.ended().unwrap_err().ends_with("is still shared from /b"));
        assert!(bench.is_shared());
        bench.start();
        let encoded = bench.manifest.encode();
        bench.answer(Ok(DiskReply::Bytes(encoded)));
        let last = bench.answer(Ok(DiskReply::Done));
        assert!(matches!(last, DiskOp::RemoveShare { last: true, .. }), "{last:?}");
        assert_eq!(bench.ended(), Ok(()));
        assert!(!bench.is_shared());
        match bench.machines.share_events.pop_front() {
            Some(ShareEvent::Withdrawn { manifest, .. }) => assert_eq!(manifest, Some(bench.manifest)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_claim_that_ends_meanwhile_in_another_way_is_passed_over() {
        let mut bench = Bench::new(1, &["/a", "/b"]);
        bench.start();
        let hash = bench.manifest.hash();
        bench.machines.store.end_claim(&hash, &Place::File(Arc::from(std::path::Path::new("/b"))));
        bench.answer(Ok(DiskReply::Done));
        assert_eq!(bench.ended(), Ok(()));
        bench.start();
        assert!(bench.ended().unwrap_err().contains("does not share"));
    }
}
