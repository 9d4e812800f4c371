//! A change that is exact, however many processes make one at once.

use crate::{
    data::{SessionData, patch::RequestId},
    error::Error,
    save::{self, Saved, shared::Shared, turn::StoreTurn},
    slot::{
        plan::{ExtraPatch, SaveJob, SaveKind},
        snapshot::TrialUpdate,
        token::LockToken,
    },
};

/// Runs `change` on the session as it is in the store, saves at once, and starts over if another process has
/// saved in between.
pub(crate) async fn update<T: SessionData, R, E: From<Error>>(
    shared: &Shared<T>,
    token: &LockToken<T>,
    writer: RequestId,
    job: SaveJob<'static>,
    mut change: impl FnMut(&mut T::Fields) -> Result<R, E>,
) -> Result<R, E> {
    let slot = token.slot();
    let mut turn = StoreTurn::for_slot(slot).await;
    // So that nothing lies between the store and the change, and the change alone is repeated.
    save::save_with_retries(shared, slot, &mut turn, job).await?;
    loop {
        let TrialUpdate { outcome, snapshot, patch } =
            token.try_change(shared.writing(writer), &mut change)?;
        let outcome = outcome?;
        let saved = match patch.is_empty() {
            // What it has seen, and left as it was, must be what the store has.
            true => save::confirm(shared, slot, snapshot.1).await?,
            false => {
                let extra_patch = ExtraPatch { patch: &patch, generation: snapshot.1 };
                let job = SaveJob { kind: SaveKind::Change(extra_patch), ..job };
                save::save_with_retries(shared, slot, &mut turn, job).await?
            }
        };
        if saved == Saved::Done {
            slot.keep_snapshot(snapshot);
            return Ok(outcome);
        }
    }
}
