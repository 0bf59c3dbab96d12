//! Which tokens' last use is due to be written: one write a token and minute, however often it is used.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use davit_api::TokenId;

/// How old a token's `last used` may be.
const EVERY: Duration = Duration::from_secs(60);

/// Uses that wait to be written, and when each token's was written last. Both hold at most every token.
#[derive(Default)]
pub(super) struct Tokens {
    used: HashMap<TokenId, DateTime<Utc>>,
    written: HashMap<TokenId, Instant>,
}

impl Tokens {
    /// Takes in newer uses.
    pub(super) fn take(&mut self, used: HashMap<TokenId, DateTime<Utc>>) {
        self.used.extend(used);
    }

    /// What to write now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(TokenId, DateTime<Utc>)> {
        self.written.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        let due = self.used.iter().filter(|(token, _)| !self.written.contains_key(token));
        due.map(|(token, at)| (*token, *at)).collect()
    }

    /// It was written.
    pub(super) fn written(&mut self, uses: &[(TokenId, DateTime<Utc>)], now: Instant) {
        for (token, _) in uses {
            self.used.remove(token);
            self.written.insert(*token, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_token_is_written_once_a_minute_and_its_last_use_is_not_forgotten() {
        let (token, other) = (TokenId::new(), TokenId::new());
        let (start, noon) = (Instant::now(), Utc::now());
        let mut tokens = Tokens::default();
        let mut writes = Vec::new();
        for second in 0..150 {
            let now = start + Duration::from_secs(second);
            if second < 100 {
                tokens.take(HashMap::from([(token, noon + Duration::from_secs(second))]));
            }
            let due = tokens.due(now);
            tokens.written(&due, now);
            writes.extend(due.into_iter().map(|(_, at)| (at - noon).num_seconds()));
        }
        assert_eq!(writes, [0, 60, 99]);
        tokens.take(HashMap::from([(other, noon)]));
        assert_eq!(
            tokens.due(start + Duration::from_secs(150)),
            [(other, noon)],
            "others do not wait for it"
        );
    }
}
