//! Runs that showed a defect when they were added. The tests run them, and so does `sim --regressions`.

/// A regression run: the scenario, the number of nodes, the minutes, and the seed.
pub type Regression = (&'static str, usize, u64, u64);

/// All regression runs. Each is small enough for a test.
pub const REGRESSIONS: &[Regression] = &[
    ("steady", 24, 10, 1),
    ("flash-crowd", 24, 10, 1),
    ("hostile", 40, 10, 1),
    ("replay", 24, 30, 1),
    ("inflate", 24, 10, 1),
    ("rolling-reboot", 40, 20, 1),
    // Two halves of a partition restarted and did not find each other again: nodes asked old contacts only while their routing
    // table was empty. A site that lost power in its first seconds remembered no contact.
    ("long-partition", 6, 10, 11),
    ("site-power", 12, 10, 11),
    // A file was announced only to the nearest nodes from earlier lookups. All of them belonged to one party and kept nothing.
    ("sybil", 32, 2, 3),
    // A start counted on records of shares that a killed run had written and not synced, or did not count on one that a full
    // disk had refused and that came back.
    ("power-loss", 2, 2, 2034),
    ("power-loss", 2, 2, 2136),
    ("power-loss", 2, 3, 2080),
    ("power-loss", 2, 6, 2131),
    ("power-loss", 2, 30, 2188),
    // On a full disk the age was written over in a file whose name a failed sync of the directory had not made durable.
    ("power-loss", 2, 30, 7013),
];
