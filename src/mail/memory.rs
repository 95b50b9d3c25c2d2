//! Letters kept in this process, for development, tests and applications' own tests.
//!
//! Decides how many are kept. Nobody gets them by mail; who may look at them is for whoever holds the
//! [`MemoryMailer`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Mail, Mailer, SendError};
use crate::ids::LetterId;

/// How many letters are kept; the oldest make room.
const KEPT: usize = 200;

/// Keeps the last 200 letters. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryMailer {
    /// Newest first.
    letters: Arc<Mutex<VecDeque<Mail>>>,
}

impl MemoryMailer {
    /// An empty mailbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The letters, newest first.
    #[must_use]
    pub fn letters(&self) -> Vec<Mail> {
        self.locked().iter().cloned().collect()
    }

    /// One letter, if it is still kept.
    #[must_use]
    pub fn letter(&self, id: LetterId) -> Option<Mail> {
        self.locked().iter().find(|mail| mail.id == id).cloned()
    }

    /// Forgets all letters.
    pub fn clear(&self) {
        self.locked().clear();
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Mail>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailer for MemoryMailer {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let mut letters = self.locked();
        letters.retain(|kept| kept.id != mail.id);
        letters.push_front(mail.clone());
        letters.truncate(KEPT);
        Ok(())
    }
}
