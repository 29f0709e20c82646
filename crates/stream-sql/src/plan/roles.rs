//! What columns mean beside their values: times of events, and the windows that rows are in.

/// What a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing else.
    Plain,
    /// The time of events: watermarks hold for it.
    Rowtime,
    /// When a record arrived, as `PROCTIME()`.
    Proctime,
    /// The window of a number.
    WindowStart(usize),
    WindowEnd(usize),
    /// The last millisecond of the window: a time of events too.
    WindowTime(usize),
}

impl Role {
    /// Whether watermarks hold for it.
    pub fn is_time(self) -> bool {
        matches!(self, Role::Rowtime | Role::WindowTime(_))
    }
}

/// The first window whose start and end are both among columns.
pub(super) fn window(roles: &[Role]) -> Option<usize> {
    roles.iter().find_map(|role| match role {
        Role::WindowStart(id) if roles.contains(&Role::WindowEnd(*id)) => Some(*id),
        _ => None,
    })
}
