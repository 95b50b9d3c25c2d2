//! Pages of a list: how long one may be, and where the next begins.

use crate::error::FieldError;

/// Most rows on one page.
pub const LONGEST_PAGE: u32 = 200;

/// How many rows were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page(usize);

impl Page {
    /// Takes a page of `limit` rows, and asks for one more, which tells whether there is a next page.
    ///
    /// # Errors
    /// [`FieldError`] for `limit`, beyond 1 to [`LONGEST_PAGE`]; it is left as it is.
    pub(crate) fn with_one_more(limit: &mut u32) -> Result<Self, FieldError> {
        if !(1..=LONGEST_PAGE).contains(limit) {
            let detail = format!("must be 1 to {LONGEST_PAGE}");
            return Err(FieldError::new("limit", "out_of_range", detail));
        }
        let page = Self(*limit as usize);
        *limit += 1;
        Ok(page)
    }

    /// The rows of the page, and the last one's id if there are more.
    pub(crate) fn cut<Row, Id>(
        self,
        mut rows: Vec<Row>,
        id: impl FnOnce(&Row) -> Id,
    ) -> (Vec<Row>, Option<Id>) {
        let next = (rows.len() > self.0).then(|| id(&rows[self.0 - 1]));
        rows.truncate(self.0);
        (rows, next)
    }
}
