//! What a component counts: a struct with a named field for each thing, and the names that `status` shows.

/// Declares the counters of one component: each line is a field and the name that `status` shows for it.
macro_rules! counters {
    (
        $(#[$about:meta])*
        $visibility:vis struct $Counters:ident {$(
            $(#[$what:meta])*
            $field:ident = $name:literal,
        )+}
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        $visibility struct $Counters {$(
            $(#[$what])*
            $visibility $field: u64,
        )+}

        impl $Counters {
            /// Each count under the name that `status` shows for it.
            $visibility fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$( ($name, self.$field) ),+].into_iter()
            }
        }
    };
}
pub(crate) use counters;

#[cfg(test)]
mod tests {
    counters! {
        /// What the test counts.
        struct Counters {
            /// Fish.
            fish = "river_fish",
            /// Birds.
            birds = "birds",
        }
    }

    #[test]
    fn each_count_is_shown_under_its_name() {
        let counters = Counters { birds: 2, ..Counters::default() };
        assert_eq!(counters.named().collect::<Vec<_>>(), [("river_fish", 0), ("birds", 2)]);
    }
}
