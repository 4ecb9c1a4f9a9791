//! The formats of what is stored, so that versions of Landfall can share a store.
//!
//! A row says in which format it was written. During a rolling upgrade an older process leaves alone what it does not
//! know: operations by name, and rows of a format beyond [`FORMAT`]. What it should know and cannot read fails alone.
//!
//! `golden/` has rows as each format was first written. A test reads them all, so a change of a stored type that would
//! make older rows unreadable, or that writes the same format differently, does not pass unseen: raise [`FORMAT`] and
//! [`known`] then, add a golden file, and keep reading the older ones.

/// The format that this version writes; it reads this one and those before.
pub(crate) const FORMAT: i64 = 1;

/// The rows that this version can run: what every look for work asks.
macro_rules! known {
    () => {
        "operation IN ('validate', 'provision', 'unprovision', 'update-access', 'reverse') AND format <= 1"
    };
}
pub(crate) use known;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operation;

    #[test]
    fn the_statement_names_every_operation_and_the_format() {
        let names = Operation::ALL.map(|operation| format!("'{operation}'")).join(", ");
        assert_eq!(known!(), format!("operation IN ({names}) AND format <= {FORMAT}"));
    }
}
