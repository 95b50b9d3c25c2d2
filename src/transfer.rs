//! Moving everything that is stored from one database to another.
//!
//! Decides in which order records go, how an interrupted transfer is taken up again, and when it is done: when
//! both databases, read once more, give the same checksums, and the source those that it gave at first. What a
//! record is, is decided in `store::moving`. Nobody may serve either database meanwhile: of the target that is
//! made sure of, of the source it is found out at the end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    clock::{Span, Timestamp},
    store::{
        StoreError, StoreResult,
        moving::{Ask, Cursor, Moving, Record, Sum, VERSION, tables::Kind},
    },
};

/// How many faults are named.
const MOST_FAULTS: usize = 20;
/// A source that was written to this recently may still be served.
const QUIET: Span = Span::minutes(1);
/// What a database removes by itself is compared only if it stays there for longer than comparing takes.
const LONGEST_COMPARISON: Span = Span::minutes(60);

/// Why a transfer did not come to its end. What was moved until then stays, and [`Transfer::run`] goes on there.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The source did not answer, or has a row that cannot be.
    #[error("the source: {0}")]
    Source(StoreError),
    /// The target did not answer, or refused a record.
    #[error("the target: {0}")]
    Target(StoreError),
    /// The source has what cannot be moved.
    #[error("nothing was moved, since the source has what cannot be: {}", .0.join("; "))]
    Unfit(Vec<String>),
    /// The target has records of its own.
    #[error("the target is not empty: it has {0}; name a new database")]
    NotEmpty(String),
    /// The target belongs to a transfer that this is not, or whose source is not the same any more.
    #[error(
        "the target was begun from another source, or from this one before it was changed ({0}); \
         drop the target and begin anew"
    )]
    AnotherTransfer(String),
    /// The source was written to meanwhile.
    #[error(
        "the source was changed while it was read: {0}; stop every node that serves it, drop the target and \
         begin anew"
    )]
    Changed(String),
    /// The target is not what was written there.
    #[error("the target is not as the source: {0}; drop it and begin anew")]
    Differs(String),
}

/// What there is of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Of which kind.
    pub kind: Kind,
    /// How many records, and their checksum.
    pub sum: Sum,
    /// How many stay behind, since the target would remove them: old closed sessions.
    pub left_behind: u64,
}

/// What a source has.
#[derive(Debug, Clone)]
pub struct Survey {
    /// All kinds, in the order of [`Kind::ALL`].
    pub tallies: Vec<Tally>,
    /// What cannot be moved, the first of it by name.
    pub faults: Vec<String>,
    /// When something last happened, if anything ever did.
    pub newest: Option<Timestamp>,
}

impl Survey {
    /// Whether somebody may still be serving the source.
    #[must_use]
    pub fn is_busy(&self, now: Timestamp) -> bool {
        self.newest.is_some_and(|at| at > now.minus(QUIET))
    }

    fn fault(&mut self, fault: String) {
        match self.faults.len() {
            MOST_FAULTS => self.faults.push("and more".to_owned()),
            n if n < MOST_FAULTS => self.faults.push(fault),
            _ => {}
        }
    }

    fn note(&mut self, kind: Kind, record: &Record) {
        let column = match kind {
            Kind::Sessions => "last_seen_at",
            Kind::Users => "updated_at",
            Kind::AuditEvents => "at",
            _ => return,
        };
        let at = record.cell(kind, column).as_i64();
        self.newest = self.newest.max(at.map(Timestamp::from_millis));
    }
}

/// What a target can store.
#[derive(Clone, Copy)]
pub struct Fit<'a> {
    /// As [`Moving::closed_kept`].
    pub closed_kept: Option<u32>,
    /// As [`Moving::misfit`].
    pub misfit: &'a (dyn Fn(&Record) -> Option<&'static str> + Sync),
}

/// Reads all of a source, about `batch` records at a time; nothing is written. What it counts and sums is what
/// would be moved to a target of this kind.
///
/// # Errors
/// [`TransferError::Source`] when the source does not answer.
pub async fn survey(from: &dyn Moving, fit: Fit<'_>, batch: u32) -> Result<Survey, TransferError> {
    let mut survey = Survey {
        tallies: Vec::new(),
        faults: Vec::new(),
        newest: None,
    };
    for kind in Kind::ALL {
        let stored = from.stored(kind).await.map_err(TransferError::Source)?;
        let mut sum = Sum::default();
        let mut faulty = 0;
        let mut after = None;
        loop {
            let page = page(from, kind, after, fit.closed_kept, batch);
            let page = page.await.map_err(TransferError::Source)?;
            for record in &page.records {
                sum.add(kind, record);
                survey.note(kind, record);
                if let Some(why) = (fit.misfit)(record) {
                    survey.fault(format!("{}: {why}", record.corrupt(kind, "any column")));
                }
            }
            faulty += page.faulty.len() as u64;
            page.faulty
                .iter()
                .for_each(|error| survey.fault(error.to_string()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let unseen = stored.saturating_sub(sum.records + faulty);
        let is_cut = kind == Kind::Sessions && fit.closed_kept.is_some();
        if unseen > 0 && !is_cut {
            survey.fault(format!(
                "{unseen} row(s) of {} cannot be read",
                kind.table()
            ));
        }
        let left_behind = if is_cut { unseen } else { 0 };
        survey.tallies.push(Tally {
            kind,
            sum,
            left_behind,
        });
    }
    Ok(survey)
}

async fn page(
    side: &dyn Moving,
    kind: Kind,
    after: Option<Cursor>,
    closed_kept: Option<u32>,
    most: u32,
) -> StoreResult<crate::store::moving::Page> {
    let ask = Ask {
        kind,
        after,
        most,
        closed_kept,
    };
    side.page(&ask).await
}

/// How far a transfer has come, as the target has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    /// What kind of database the source is: a cursor means nothing to another.
    source: String,
    /// What the source had when the transfer began.
    sums: Vec<Sum>,
    /// How many kinds are moved.
    done: usize,
    /// How far the next one is.
    after: Option<Cursor>,
}

impl State {
    fn to_text(&self) -> String {
        // Texts and numbers: nothing that JSON could not write.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What differs from a transfer that would begin now.
    fn difference(&self, fresh: &Self) -> Option<String> {
        if (self.version, &self.source) != (fresh.version, &fresh.source) {
            return Some("another kind of database, or another version of Doorward".to_owned());
        }
        let sums = Kind::ALL.iter().zip(self.sums.iter().zip(&fresh.sums));
        let changed = sums.filter(|(kind, (was, is))| was != is && !kind.goes_by_itself());
        let changed: Vec<Kind> = changed.map(|(kind, _)| *kind).collect();
        (!changed.is_empty()).then(|| named(&changed))
    }
}

fn named(kinds: &[Kind]) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

/// A transfer from one database to another.
pub struct Transfer {
    /// The source; it is only read.
    pub from: Arc<dyn Moving>,
    /// What the source is called, so that another kind of database is told from it.
    pub source: String,
    /// The target, with all tables.
    pub to: Arc<dyn Moving>,
    /// About how many records are moved in one transaction, at least 1.
    pub batch: u32,
}

impl Transfer {
    /// Reads all of the source; nothing is written.
    ///
    /// # Errors
    /// As [`survey`].
    pub async fn survey(&self) -> Result<Survey, TransferError> {
        let misfit = |record: &Record| self.to.misfit(record);
        let fit = Fit {
            closed_kept: self.to.closed_kept(),
            misfit: &misfit,
        };
        survey(&*self.from, fit, self.batch).await
    }

    /// Moves what was surveyed, or the rest of it if it was begun before, and compares both databases; `tell` is
    /// told of each kind that is moved. The target is served by no node until this succeeds.
    ///
    /// # Errors
    /// [`TransferError`]; the same call may be repeated, also after the process was killed.
    pub async fn run(
        &self,
        survey: &Survey,
        tell: &mut (dyn FnMut(&Tally) + Send),
    ) -> Result<(), TransferError> {
        if !survey.faults.is_empty() {
            return Err(TransferError::Unfit(survey.faults.clone()));
        }
        let mut state = self.begin(survey).await?;
        while let Some(kind) = Kind::ALL.get(state.done).copied() {
            self.move_page(kind, &mut state).await?;
            if state.after.is_none() {
                tell(&survey.tallies[state.done - 1]);
            }
        }
        self.compare(survey).await?;
        self.to.finish().await.map_err(TransferError::Target)
    }

    /// Makes the target one, or finds out how far it is.
    async fn begin(&self, survey: &Survey) -> Result<State, TransferError> {
        let fresh = State {
            version: VERSION,
            source: self.source.clone(),
            sums: survey
                .tallies
                .iter()
                .map(|tally| tally.sum.clone())
                .collect(),
            done: 0,
            after: None,
        };
        let known = self.to.unfinished().await.map_err(TransferError::Target)?;
        let Some(known) = known else {
            self.must_be_empty().await?;
            let begun = self.to.begin(&fresh.to_text()).await;
            begun.map_err(TransferError::Target)?;
            return Ok(fresh);
        };
        let state: State = serde_json::from_str(&known).map_err(|_| {
            TransferError::AnotherTransfer("another version of Doorward".to_owned())
        })?;
        match state.difference(&fresh) {
            Some(difference) => Err(TransferError::AnotherTransfer(difference)),
            None => Ok(state),
        }
    }

    async fn must_be_empty(&self) -> Result<(), TransferError> {
        let there = contents(&*self.to).await.map_err(TransferError::Target)?;
        if there.is_empty() {
            Ok(())
        } else {
            Err(TransferError::NotEmpty(there.join(", ")))
        }
    }

    async fn move_page(&self, kind: Kind, state: &mut State) -> Result<(), TransferError> {
        let kept = self.to.closed_kept();
        let page = page(&*self.from, kind, state.after.clone(), kept, self.batch);
        let page = page.await.map_err(TransferError::Source)?;
        if let Some(error) = page.faulty.into_iter().next() {
            return Err(TransferError::Source(error));
        }
        let mut next = state.clone();
        next.done += usize::from(page.next.is_none());
        next.after = page.next;
        let (before, after) = (state.to_text(), next.to_text());
        let written = self.to.import(kind, &page.records, &before, &after);
        written.await.map_err(TransferError::Target)?;
        *state = next;
        Ok(())
    }

    /// Reads both databases once more.
    async fn compare(&self, survey: &Survey) -> Result<(), TransferError> {
        let here = self.from.now().await.map_err(TransferError::Source)?;
        let there = self.to.now().await.map_err(TransferError::Target)?;
        let later = here.max(there).plus(LONGEST_COMPARISON);
        let (mut changed, mut differing) = (Vec::new(), Vec::new());
        for tally in &survey.tallies {
            let kind = tally.kind;
            let kept = self.to.closed_kept();
            let source = sum(&*self.from, kind, kept, self.batch, later).await;
            let source = source.map_err(TransferError::Source)?;
            let target = sum(&*self.to, kind, None, self.batch, later).await;
            let target = target.map_err(TransferError::Target)?;
            if source != tally.sum && !kind.goes_by_itself() {
                changed.push(kind);
            } else if source != target {
                differing.push(kind);
            }
        }
        if !changed.is_empty() {
            return Err(TransferError::Changed(named(&changed)));
        }
        if !differing.is_empty() {
            return Err(TransferError::Differs(named(&differing)));
        }
        Ok(())
    }
}

/// What a database has, each kind with its number.
///
/// # Errors
/// [`StoreError`] when the database does not answer.
pub async fn contents(side: &dyn Moving) -> StoreResult<Vec<String>> {
    let mut there = Vec::new();
    for kind in Kind::ALL {
        let stored = side.stored(kind).await?;
        if stored > 0 {
            there.push(format!("{stored} {}", kind.as_str()));
        }
    }
    Ok(there)
}

/// Sums a kind up; of what goes by itself, that which is still there later.
async fn sum(
    side: &dyn Moving,
    kind: Kind,
    closed_kept: Option<u32>,
    batch: u32,
    later: Timestamp,
) -> StoreResult<Sum> {
    let mut sum = Sum::default();
    let mut after = None;
    loop {
        let page = page(side, kind, after, closed_kept, batch).await?;
        if let Some(error) = page.faulty.into_iter().next() {
            return Err(error);
        }
        let stays = |record: &&Record| {
            let end = record.cell(kind, "expires_at").as_i64();
            !kind.goes_by_itself() || end.is_some_and(|end| end > later.as_millis())
        };
        let staying = page.records.iter().filter(stays);
        staying.for_each(|record| sum.add(kind, record));
        after = page.next;
        if after.is_none() {
            return Ok(sum);
        }
    }
}
