//! Conversions shared by the types that wrap one checked text and whose error is a sentence, and by the enums
//! whose variants are one word each.

/// A type that wraps one checked text: everything but `FromStr`, which is where each type checks its own rule, and whose error is
/// a sentence unless another type stands behind the name. An example for the OpenAPI document is a `tt`, as below.
macro_rules! text_like {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(= $example:tt)?;
    ) => {
        crate::text::text_like! { $(#[$meta])* pub struct $name: String $(= $example)?; }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $error:ty $(= $example:tt)?;
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
            schemars::JsonSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String $(, example = $example)?)]
        #[schemars(with = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.into()
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}
pub(crate) use text_like;

/// An enum of words: each variant is the same word in JSON, in the database and on the command line. What it is
/// stands before the body with its article, for the sentence that refuses another word. The words are `tt`: what
/// writes the OpenAPI document does not see a `literal` that went through a macro.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident = $what:literal {
            $($(#[$of:meta])* $variant:ident = $word:tt,)+
        }
    ) => {
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        $(#[$meta])*
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] $variant,)+
        }
        impl $name {
            /// Every one, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|one| one.as_str() == text)
                    .ok_or_else(|| format!("{text:?} is not {}; use {}", $what, [$($word),+].join(", ")))
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::{InstanceState, MethodMatch, NetworkClass, Role};

    #[test]
    fn a_word_is_the_same_everywhere() {
        for state in InstanceState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.to_string(), state.as_str());
        }
        assert_eq!(serde_json::from_str::<MethodMatch>("\"DELETE\"").unwrap(), MethodMatch::Delete);
        assert_eq!(NetworkClass::default().as_str(), "egress");
        let refused = "root".parse::<Role>().unwrap_err();
        assert_eq!(refused, "\"root\" is not a role; use read, invoke, deploy, admin");
    }
}
