//! Counters by reason: one table makes the reasons, their names, and the counters.

/// Makes an enum of reasons and a struct with a counter of each. A reason is one line of the table; its
/// variant, its counter, its name and its share of the sum cannot get out of step.
macro_rules! reason_counters {
    (
        $(#[$reason_doc:meta])*
        enum $Reason:ident;
        $(#[$counters_doc:meta])*
        pub struct $Counters:ident;
        $($(#[$doc:meta])* $variant:ident: $field:ident, $name:literal;)*
    ) => {
        $(#[$reason_doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(in crate::forward) enum $Reason {
            $($variant,)*
        }

        impl $Reason {
            /// Every reason, in the order of the variants.
            pub(in crate::forward) const ALL: [Self; [$(stringify!($variant)),*].len()] =
                [$(Self::$variant),*];

            /// Returns the name of the reason in metrics, connection records and log lines.
            pub(in crate::forward) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        $(#[$counters_doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct $Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $Counters {
            /// Returns the sum of all reasons.
            #[must_use]
            pub const fn sum(&self) -> u64 {
                0 $(+ self.$field)*
            }

            /// Returns each reason's name, as in the director's metrics, and its counter.
            pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                $Reason::ALL.map($Reason::name).into_iter().zip([$(self.$field),*])
            }

            /// Adds a number for each reason.
            pub(in crate::forward) fn add(&mut self, count: impl Fn($Reason) -> u64) {
                $(self.$field += count($Reason::$variant);)*
            }
        }
    };
}

pub(super) use reason_counters;
