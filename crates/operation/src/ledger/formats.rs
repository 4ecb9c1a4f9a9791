//! The formats of stored rows, so that versions of Landfall can share a store.
//!
//! Each row has the format in which it was written. During a rolling upgrade an older process ignores rows that
//! it does not know: unknown operations, and formats beyond [`FORMAT`]. A row of a supported format that cannot
//! be read fails without effect on other rows.
//!
//! `golden/` has rows of each format as they were first written, and a test reads them all. So the test fails if a
//! change of a stored type makes older rows unreadable, or writes the same format differently. Then raise [`FORMAT`]
//! and [`known`], add a golden file, and keep reading the older ones.

/// The format that this version writes. This version reads this format and all earlier ones.
pub(crate) const FORMAT: i64 = 1;

/// The rows that this version can run; part of every query for work.
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
