//! Accounts as clients ask for them: which addresses, names and attributes are accepted.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::RegistrationId,
    model::{
        field::FieldError,
        user::{Attributes, PasswordHash, UserPatch},
    },
    setting::BadSetting,
    username::Username,
};

/// The application's rules for attributes, on top of Doorward's own.
#[derive(Clone, Default)]
pub struct AttributeRules(Option<Arc<jsonschema::Validator>>);

impl AttributeRules {
    /// Rules from the text of a JSON Schema. References to other documents are not followed.
    ///
    /// # Errors
    /// [`BadSetting`] for `accounts.attributes_schema`.
    pub fn from_schema(text: &str) -> Result<Self, BadSetting> {
        let bad = |problem: String| {
            BadSetting::new(
                "accounts.attributes_schema",
                problem,
                "name a file with a JSON Schema of type object",
            )
        };
        let schema: Value =
            serde_json::from_str(text).map_err(|e| bad(format!("is not JSON: {e}")))?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|e| bad(format!("is not a JSON Schema: {e}")))?;
        Ok(Self(Some(Arc::new(validator))))
    }

    /// Checks attributes as given by a client; none at all are checked as an empty object.
    ///
    /// # Errors
    /// One [`FieldError`] for each place that breaks a rule, at most 20.
    pub fn accept(&self, given: Option<Map<String, Value>>) -> Result<Attributes, Vec<FieldError>> {
        let object = given.unwrap_or_default();
        let attributes = Attributes::parse(object)
            .map_err(|e| vec![FieldError::new("attributes", "not_storable", e.to_string())])?;
        let Some(validator) = &self.0 else {
            return Ok(attributes);
        };
        let value = Value::Object(attributes.as_map().clone());
        let errors: Vec<FieldError> = validator
            .iter_errors(&value)
            .take(20)
            .map(|e| schema_error(&e))
            .collect();
        if errors.is_empty() {
            Ok(attributes)
        } else {
            Err(errors)
        }
    }
}

fn schema_error(error: &jsonschema::ValidationError<'_>) -> FieldError {
    let place = error.instance_path().to_string().replace('/', ".");
    // The masked form names the rule and leaves the value out.
    FieldError::new(
        format!("attributes{place}"),
        "schema",
        error.masked().to_string(),
    )
}

/// An account as a client asks for it.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// E-mail address, unparsed.
    pub email: String,
    /// User name, unparsed.
    pub username: Option<String>,
    /// The application's own fields.
    pub attributes: Option<Map<String, Value>>,
}

impl NewAccount {
    /// Parses every field and collects all that is wrong.
    pub(crate) fn parse(
        self,
        rules: &AttributeRules,
        errors: &mut Vec<FieldError>,
    ) -> Option<(EmailAddress, Option<Username>, Attributes)> {
        let email = EmailAddress::parse(&self.email)
            .map_err(|e| errors.push(FieldError::new("email", "invalid", e.to_string())))
            .ok();
        let username = self.username.map(|name| parse_username(&name, errors));
        let attributes = rules
            .accept(self.attributes)
            .map_err(|more| errors.extend(more))
            .ok();
        match (email, username, attributes) {
            (Some(email), None, Some(attributes)) => Some((email, None, attributes)),
            (Some(email), Some(Some(username)), Some(attributes)) => {
                Some((email, Some(username), attributes))
            }
            _ => None,
        }
    }
}

/// A registration that waits for its address to be confirmed: an account that does not exist yet and that
/// nobody can see.
#[derive(Debug, Clone)]
pub struct NewRegistration {
    /// Its id.
    pub id: RegistrationId,
    /// The address that will be the account's.
    pub email: EmailAddress,
    /// The user name, which somebody else may take meanwhile.
    pub username: Option<Username>,
    /// The application's own fields.
    pub attributes: Attributes,
    /// The password chosen; whoever confirms has to know it.
    pub password_hash: PasswordHash,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
}

/// A waiting registration, as whoever confirms it is judged by.
#[derive(Debug, Clone)]
pub struct WaitingRegistration {
    /// Which.
    pub id: RegistrationId,
    /// The password chosen.
    pub password_hash: PasswordHash,
}

fn parse_username(text: &str, errors: &mut Vec<FieldError>) -> Option<Username> {
    Username::parse(text)
        .map_err(|e| errors.push(FieldError::new("username", "invalid", e.to_string())))
        .ok()
}

/// What users may change about themselves; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    /// A new user name, or none any more.
    pub username: Option<Option<String>>,
    /// New attributes in place of all the old ones.
    pub attributes: Option<Map<String, Value>>,
}

impl ProfileChange {
    pub(crate) fn parse(self, rules: &AttributeRules, errors: &mut Vec<FieldError>) -> UserPatch {
        let username = self
            .username
            .map(|name| name.and_then(|text| parse_username(&text, errors)));
        let attributes = self.attributes.and_then(|given| {
            rules
                .accept(Some(given))
                .map_err(|more| errors.extend(more))
                .ok()
        });
        UserPatch {
            username,
            attributes,
            ..UserPatch::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Option<Map<String, Value>> {
        value.as_object().cloned()
    }

    #[test]
    fn attributes_satisfy_the_applications_schema() {
        let schema = json!({
            "type": "object",
            "required": ["plan"],
            "properties": {"plan": {"enum": ["free", "pro"]}, "seats": {"type": "integer"}},
            "additionalProperties": false
        });
        let rules = AttributeRules::from_schema(&schema.to_string()).expect("a schema");
        assert!(
            rules
                .accept(object(&json!({"plan": "pro", "seats": 3})))
                .is_ok()
        );
        let errors = rules
            .accept(object(&json!({"plan": "pro", "seats": "a secret"})))
            .expect_err("seats is no integer");
        assert_eq!(
            (errors[0].field.as_str(), errors[0].code),
            ("attributes.seats", "schema")
        );
        assert!(
            !errors[0].detail.contains("a secret"),
            "the value is not repeated: {}",
            errors[0].detail
        );
        assert_eq!(
            rules.accept(None).expect_err("plan is missing")[0].field,
            "attributes"
        );
    }

    #[test]
    fn a_broken_schema_names_its_setting() {
        for text in ["{", r#"{"type": 5}"#] {
            let error = AttributeRules::from_schema(text)
                .map(drop)
                .expect_err("broken");
            assert_eq!(error.key, "accounts.attributes_schema");
        }
    }
}
