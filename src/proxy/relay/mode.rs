//! The choice between messages and bulk.

/// A read of this size or more counts towards bulk.
const LARGE: usize = 32 * 1024;
/// A read of bulk below this size counts against it.
const SMALL: usize = 16 * 1024;
/// This many large reads in a row promote a direction to bulk.
const READS_TO_PROMOTE: u8 = 3;
/// This many small reads of bulk in a row demote it.
const READS_TO_DEMOTE: u8 = 2;

/// How bytes are moved.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    /// Copied through the worker's buffer; counts large reads in a row.
    Copy { large: u8 },
    /// In bulk's turn: spliced through a pipe, if one can be borrowed and there is no TLS; counts small reads in a
    /// row.
    Bulk { small: u8 },
}

impl Mode {
    /// The mode after a read of this size: copying is cheaper for small reads, splicing for bulk.
    pub(super) fn after(self, read: usize) -> Self {
        match self {
            Mode::Copy { large } if read >= LARGE && large + 1 >= READS_TO_PROMOTE => {
                Mode::Bulk { small: 0 }
            }
            Mode::Copy { large } if read >= LARGE => Mode::Copy { large: large + 1 },
            Mode::Bulk { small } if read < SMALL && small + 1 >= READS_TO_DEMOTE => {
                Mode::Copy { large: 0 }
            }
            Mode::Bulk { small } if read < SMALL => Mode::Bulk { small: small + 1 },
            Mode::Copy { .. } => Mode::Copy { large: 0 },
            Mode::Bulk { .. } => Mode::Bulk { small: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bulk(reads: &[usize]) -> bool {
        let mode = reads.iter().fold(Mode::Copy { large: 0 }, |mode, read| mode.after(*read));
        matches!(mode, Mode::Bulk { .. })
    }

    #[test]
    fn consecutive_large_reads_start_bulk_and_small_ones_end_it() {
        let (large, middling, small) = (LARGE, LARGE - 1, SMALL - 1);
        assert!(!is_bulk(&[large, large]));
        assert!(is_bulk(&[large, large, large]));
        assert!(!is_bulk(&[large, large, middling, large, large]));
        let bulk = [large; 3];
        assert!(is_bulk(&[&bulk[..], &[small]].concat()));
        assert!(!is_bulk(&[&bulk[..], &[small, small]].concat()));
        assert!(is_bulk(&[&bulk[..], &[small, middling, small]].concat()));
        assert!(!is_bulk(&[&bulk[..], &[small, small, large, large]].concat()));
    }
}
