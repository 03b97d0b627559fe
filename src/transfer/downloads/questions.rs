//! Questions to sources which of the missing chunks they have.

use super::chunks::Bits;
use super::download::{Download, Phase};
use super::table::Downloads;
use crate::id::Key;
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::common::Common;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::Question;
use crate::wire::frame::{Frame, WHICH_KEYS_MAX};

/// Unanswered questions to one peer.
const QUESTIONS_AHEAD_MAX: usize = 4;

impl Download {
    /// Asks connected sources which of the missing chunks they have: once at first, and again at growing intervals while they have
    /// nothing to give, because they may be downloading themselves.
    pub(super) fn ask_which(&mut self, now: Instant, common: &mut Common) {
        let Phase::Chunks(chunks) = &mut self.phase else { return };
        for (peer, source) in self.sources.iter_mut().filter(|(_, source)| !source.banned) {
            let Some((stream, session)) = common.streams.session_to_mut(peer) else { continue };
            let between = source.cursor.is_none() && source.questions == 0;
            if between && source.ask_at <= now && !chunks.unasked_of(&source.has) {
                source.start_round();
            }
            let asking = source.cursor.is_some();
            while let Some(from) = source.cursor {
                if session.questions.len() >= QUESTIONS_AHEAD_MAX {
                    break;
                }
                let missing = |index| chunks.is_missing(index);
                let (asked, next) = next_question(missing, &source.has, from, chunks.count());
                source.cursor = next;
                let keys: Vec<Key> = asked.iter().filter_map(|&index| chunks.key(index)).collect();
                if keys.is_empty() {
                    break;
                }
                let question = session.number();
                common.out.write(stream, session, &Frame::Which { question, keys: &keys });
                session.questions.insert(question, Question { download: self.id, chunks: asked });
                source.questions += 1;
            }
            if asking && source.cursor.is_none() && source.questions == 0 {
                source.end_round(now, &common.config.timing);
            }
        }
    }
}

impl Downloads {
    /// A source answers which chunks it has.
    pub(in crate::transfer) fn on_have(
        &mut self,
        now: Instant,
        stream: StreamId,
        question: u32,
        bitmap: &[u8; 16],
        common: &mut Common,
    ) -> Result<(), CloseReason> {
        let Some(session) = common.streams.heard_on(stream) else { return Ok(()) };
        session.answered(now);
        let (Some(question), Some(peer)) = (session.questions.remove(&question), session.peer_id()) else {
            return Err(CloseReason::Unexpected);
        };
        if question.chunks.is_empty() {
            return Ok(());
        }
        let answers = answered_chunks(&question.chunks, bitmap).ok_or(CloseReason::Unexpected)?;
        let Some(download) = self.under_way.get_mut(&question.download) else { return Ok(()) };
        for (index, _) in answers.into_iter().filter(|(_, has)| *has) {
            download.note_holding(&peer, index, true);
        }
        if let Some(source) = download.sources.get_mut(&peer) {
            source.questions = source.questions.saturating_sub(1);
            if source.cursor.is_none() && source.questions == 0 {
                source.end_round(now, &common.config.timing);
            }
        }
        self.note_change();
        Ok(())
    }
}

/// The chunks of a question, each with whether the other end has it; `None` when the bitmap has a bit beyond them.
fn answered_chunks(chunks: &[u32], bitmap: &[u8; 16]) -> Option<Vec<(u32, bool)>> {
    let bit = |i: usize| bitmap[i / 8] & (1 << (i % 8)) != 0;
    let beyond = (chunks.len()..bitmap.len() * 8).any(bit);
    (!beyond).then(|| chunks.iter().enumerate().map(|(i, &chunk)| (chunk, bit(i))).collect())
}

/// The chunks of the next question: those from `from` on that are missing here and not known to be at the source. Also
/// returns where the following question starts; `None` when this is the last.
fn next_question(
    missing: impl Fn(u32) -> bool,
    known: &Bits,
    from: u32,
    count: u32,
) -> (Vec<u32>, Option<u32>) {
    let mut chunks = Vec::new();
    for index in from..count {
        if chunks.len() == WHICH_KEYS_MAX {
            return (chunks, Some(index));
        }
        if missing(index) && !known.get(index) {
            chunks.push(index);
        }
    }
    (chunks, None)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching};
    use super::*;
    use crate::transfer::testing::{NOW, peer, stream};

    #[test]
    fn questions_leave_out_what_is_here_or_known_and_cover_the_rest() {
        let mut known = Bits::new(300);
        known.put(2, true);
        let (mut asked, mut from) = (Vec::new(), Some(0));
        let mut sizes = Vec::new();
        while let Some(at) = from {
            let (chunks, next) = next_question(|index| index != 1, &known, at, 300);
            sizes.push(chunks.len());
            asked.extend(chunks);
            from = next;
        }
        assert_eq!(asked, [0].into_iter().chain(3..300).collect::<Vec<u32>>());
        assert_eq!(sizes, [128, 128, 42]);
    }

    #[test]
    fn an_answer_about_more_chunks_than_were_asked_for_is_refused() {
        let mut bitmap = [0; 16];
        bitmap[0] = 0b10;
        assert_eq!(answered_chunks(&[5, 9], &bitmap), Some(vec![(5, false), (9, true)]));
        bitmap[0] = 0b110;
        assert_eq!(answered_chunks(&[5, 9], &bitmap), None);
    }

    #[test]
    fn the_chunks_that_a_source_says_it_has_are_entered() {
        let (mut downloads, mut common) = fetching(3, &[]);
        downloads.pump_all(NOW, &mut common);
        let question = *common.streams.get(&stream(1)).unwrap().questions.keys().next().unwrap();
        let mut bitmap = [0; 16];
        bitmap[0] = 0b101;
        assert_eq!(downloads.on_have(NOW, stream(1), question, &bitmap, &mut common), Ok(()));
        let source = &downloads.the_one().sources[&peer(1).id];
        assert_eq!(source.has.ones().collect::<Vec<_>>(), [0, 2]);
        assert!(source.asked_once);
        let again = downloads.on_have(NOW, stream(1), question, &bitmap, &mut common);
        assert_eq!(again, Err(CloseReason::Unexpected), "each question has one answer");
    }

    #[test]
    fn the_answer_to_a_question_of_an_aborted_download_is_ignored() {
        let (mut downloads, mut common) = fetching(3, &[]);
        downloads.pump_all(NOW, &mut common);
        downloads.abort(ID, &mut common);
        let question = *common.streams.get(&stream(1)).unwrap().questions.keys().next().unwrap();
        assert_eq!(downloads.on_have(NOW, stream(1), question, &[255; 16], &mut common), Ok(()));
    }
}
