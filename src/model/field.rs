//! What is said about one field of a client's input that breaks a rule.

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name as the client wrote it, e.g. `password` or `attributes.plan`.
    pub field: String,
    /// A stable name of the rule.
    pub code: &'static str,
    /// The rule in words; never repeats the value.
    pub detail: String,
}

impl FieldError {
    /// Names the field, the rule and what would be right.
    pub fn new(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code,
            detail: detail.into(),
        }
    }
}
