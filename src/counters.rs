//! Counters of a component: a struct with a named field for each counter, and the counter's name in `status`.

/// Declares the counters of one component. Each line is a field and its name in `status`.
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
            /// Each counter with its name in `status`.
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
        /// The counters of the test.
        struct Counters {
            /// Fish.
            fish = "river_fish",
            /// Birds.
            birds = "birds",
        }
    }

    #[test]
    fn each_counter_has_its_name_in_status() {
        let counters = Counters { birds: 2, ..Counters::default() };
        assert_eq!(counters.named().collect::<Vec<_>>(), [("river_fish", 0), ("birds", 2)]);
    }
}
