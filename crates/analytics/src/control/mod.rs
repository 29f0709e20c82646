//! The operations.

mod code;
mod create;
mod describe;
mod discover;
mod flink;
mod inputs;
mod logging;
mod other;
mod outputs;
mod page;
mod references;
mod run;
mod snapshots;
mod tags;
mod update;
mod versions;
mod vpc;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Caller};
use wire::kinesisanalyticsv2::RuntimeEnvironment;

use crate::error::{concurrent, invalid};
use crate::service::{Analytics, AppState, Draft, busy};
use crate::stored::Phase;
use crate::tables::tables;

/// Which version of an application a caller saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    version: Option<i64>,
    token: Option<String>,
}

impl Seen {
    fn version(version: i64) -> Self {
        Seen {
            version: Some(version),
            token: None,
        }
    }

    fn either(version: Option<i64>, token: Option<String>) -> Self {
        Seen { version, token }
    }

    /// Refuses what was not seen as it is.
    fn check(&self, state: &AppState) -> Result<(), ApiError> {
        if self.version.is_none() && self.token.is_none() {
            return Err(invalid(
                "One of CurrentApplicationVersionId and ConditionalToken must be given.",
            ));
        }
        let current = state.record.version;
        if let Some(seen) = self.version
            && u64::try_from(seen).ok() != Some(current)
        {
            return Err(concurrent(format!(
                "The application was changed: its current version is {current}, the request names {seen}."
            )));
        }
        if let Some(seen) = &self.token
            && *seen != describe::conditional_token(state)
        {
            return Err(concurrent(
                "The application was changed: the ConditionalToken is not the current one.",
            ));
        }
        Ok(())
    }
}

/// Whether a running application must begin anew for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It concerns descriptions alone.
    None,
    /// It concerns what is computed.
    Job,
}

/// Whether the script is looked at before a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No.
    None,
    /// If everything is there that it can need.
    Script,
}

/// A change of the configuration.
pub(crate) struct Change {
    /// What the caller saw.
    pub seen: Seen,
    /// What it concerns.
    pub effect: Effect,
    /// Whether the script is looked at.
    pub look: Look,
    /// The operation that is listed for it; none for those whose answer has no id.
    pub operation: Option<&'static str>,
    /// A state that does not fit the new version is left out; else such an update fails.
    pub allow_non_restored: bool,
}

impl Change {
    /// Of the job, by version.
    pub fn of_job(seen: Seen) -> Self {
        Change {
            seen,
            effect: Effect::Job,
            look: Look::None,
            operation: None,
            allow_non_restored: true,
        }
    }
}

impl Change {
    /// Of what is told and not of the job.
    pub fn of_description(seen: Seen, operation: &'static str) -> Self {
        Change {
            effect: Effect::None,
            operation: Some(operation),
            ..Change::of_job(seen)
        }
    }
}

/// What came of a change of the configuration.
pub(crate) struct Changed<T> {
    /// What the change gave.
    pub answer: T,
    /// The application behind it.
    pub state: Arc<AppState>,
    /// The operation that is listed for it.
    pub operation: Option<String>,
}

impl<T> Changed<T> {
    /// The new version, as answers tell it.
    fn version_id(&self) -> Option<i64> {
        i64::try_from(self.state.record.version).ok()
    }
}

impl Analytics {
    /// Makes a new version of an application. One that runs begins anew with it.
    pub(crate) async fn configure<T: Send + 'static>(
        &self,
        caller: &Caller,
        name: &str,
        change: Change,
        edit: impl FnOnce(&mut Draft) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<Changed<T>, ApiError> {
        let state = self.find(caller, name)?;
        self.alone(&state, move |this, current| async move {
            change.seen.check(&current)?;
            if !matches!(current.record.phase, Phase::Ready | Phase::Running) {
                return Err(busy(&current));
            }
            let of_sql = change.effect == Effect::Job && change.look == Look::None;
            if of_sql && current.current.runtime() != RuntimeEnvironment::Sql10 {
                return Err(invalid(format!(
                    "Application {} is of Flink, which has its inputs and outputs in its statements.",
                    current.arn
                )));
            }
            let mut draft = this.draft(&current);
            draft.next_version();
            let answer = edit(&mut draft)?;
            inputs::check_names(&draft.version)?;
            match change.look {
                Look::Script => this.look_at_script(&current.name, &draft.version).await?,
                Look::None if anew(&current, &change) => {
                    let looked = this.look_at_script(&current.name, &draft.version).await;
                    looked.map_err(|error| invalid(error.message))?;
                }
                Look::None => {}
            }
            if anew(&current, &change) {
                tables(&draft.version, &BTreeMap::new()).map_err(invalid)?;
            }
            let (operation, restart) = this.arrange(&current, &mut draft, &change);
            let state = this.commit(&current, draft).await?;
            if let Some(snapshot) = restart {
                this.again(&state, snapshot);
            }
            Ok(Changed {
                answer,
                state,
                operation,
            })
        })
        .await
    }

    /// Notes the operation, and that a running application is to begin anew; then gives the snapshot to be kept before.
    fn arrange(
        &self,
        current: &AppState,
        draft: &mut Draft,
        change: &Change,
    ) -> (Option<String>, Option<Option<String>>) {
        let (now, versions) = (draft.now_ms, (current.record.version, draft.record.version));
        let operation = change
            .operation
            .map(|name| draft.record.begin(name, now, Some(versions)));
        if !anew(current, change) {
            if let Some(operation) = &operation {
                draft.record.finish(operation, now, Ok(()));
            }
            return (operation, None);
        }
        draft.record.phase = Phase::Updating;
        if let Some(run) = &mut draft.record.run {
            run.operation.clone_from(&operation);
            run.allow_non_restored = change.allow_non_restored;
        }
        let snapshot = snapshots::system_snapshot(current, draft, "update");
        (operation, Some(snapshot))
    }
}

/// Whether the application is to begin anew for a change.
fn anew(current: &AppState, change: &Change) -> bool {
    change.effect == Effect::Job && current.record.phase == Phase::Running
}

/// A name that is there twice.
fn twice<T: Ord>(mut names: Vec<T>) -> Option<T> {
    names.sort_unstable();
    let at = names.windows(2).position(|pair| pair.first() == pair.last())?;
    Some(names.swap_remove(at))
}

/// The id of the next part of a version: `VERSION.NUMBER`, as AWS numbers them.
fn next_id<'a>(version: u64, there: impl Iterator<Item = &'a str>) -> String {
    let own = format!("{version}.");
    let numbers = there.filter_map(|id| id.strip_prefix(&own)?.parse::<u32>().ok());
    format!("{own}{}", numbers.max().unwrap_or(0) + 1)
}

#[cfg(test)]
mod tests {
    use super::next_id;

    #[test]
    fn parts_are_numbered_within_the_version_that_brought_them() {
        assert_eq!(next_id(1, [].into_iter()), "1.1");
        assert_eq!(next_id(2, ["1.1", "2.1", "2.4", "x"].into_iter()), "2.5");
    }
}
