//! Enums of which each variant has a word.

/// Declares an enum and, once each, the words of its variants: in the configuration,
/// the journal, JSON or on the command line.
///
/// ```
/// netguard_core::words! {
///     /// How sure it is.
///     #[derive(Debug, Clone, Copy, PartialEq)]
///     pub enum Answer {
///         /// It is so.
///         Yes = "yes",
///         /// It is unknown.
///         Perhaps = "may-be",
///     }
/// }
/// assert_eq!(Answer::Perhaps.as_str(), "may-be");
/// assert_eq!(Answer::of("yes"), Some(Answer::ALL[0]));
/// ```
#[macro_export]
macro_rules! words {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$about:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// The one with this word, if there is one.
            pub fn of(word: &str) -> Option<$name> {
                $name::ALL.into_iter().find(|it| it.as_str() == word)
            }
        }

        impl $crate::serde::Serialize for $name {
            fn serialize<S: $crate::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}
