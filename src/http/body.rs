//! Request bodies: bounded, read strictly, and refused without repeating what was in them.
//!
//! poem-openapi's own JSON payload reads without limit, lets duplicate keys pass and puts the refused
//! value into its message, which may be a password. [`JsonBody`] does none of that.

use std::fmt;

use poem::{FromRequest, Request, RequestBody, http::StatusCode};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::{ParsePayload, Payload},
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry},
    types::{ParseFromJSON, Type},
};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::error::FieldError;

/// A JSON body of a known shape.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: Type> Payload for JsonBody<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        is_type(content_type, Self::CONTENT_TYPE)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: ParseFromJSON> ParsePayload for JsonBody<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> poem::Result<Self> {
        let bytes = <Vec<u8> as FromRequest>::from_request(request, body).await?;
        let object = read_object(&bytes)?;
        check_shape::<T>(&object)?;
        let parsed = T::parse_from_json(Some(Value::Object(object)));
        // The message may repeat a value; which field it is was not said.
        parsed.map(Self).map_err(|_| {
            Problem::bad_request(
                "wrong_value",
                "A field has a value that is not one of those documented.",
            )
            .into()
        })
    }
}

impl<'a, T: ParseFromJSON> ApiExtractor<'a> for JsonBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(body_meta::<Self>())
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if request.content_type().is_some_and(Self::check_content_type) {
            <Self as ParsePayload>::from_request(request, body).await
        } else {
            Err(unsupported(Self::CONTENT_TYPE).into())
        }
    }
}

/// A form as the OAuth2 password flow sends it. Fields that are not known are passed over, since
/// clients send whatever their OAuth library sends.
#[derive(Debug)]
pub(super) struct FormBody<T>(pub(super) T);

impl<T: Type> Payload for FormBody<T> {
    const CONTENT_TYPE: &'static str = "application/x-www-form-urlencoded";

    fn check_content_type(content_type: &str) -> bool {
        is_type(content_type, Self::CONTENT_TYPE)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: DeserializeOwned + Send> ParsePayload for FormBody<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> poem::Result<Self> {
        let poem::web::Form(form) =
            <poem::web::Form<T> as FromRequest>::from_request(request, body)
                .await
                .map_err(|error| malformed_form(&error))?;
        Ok(Self(form))
    }
}

/// What is wrong with a form. Of the reader's words only those are repeated that name one of our fields.
pub(super) fn malformed_form(error: &poem::Error) -> Problem {
    let reason = error.to_string();
    let known = ["missing field `", "duplicate field `"];
    let named = known
        .iter()
        .find_map(|what| reason.find(what).map(|at| &reason[at..]));
    let detail = named.map_or_else(
        || "The body is not a form.".to_owned(),
        |named| format!("The form is wrong: {named}."),
    );
    Problem::bad_request("malformed_form", detail)
}

impl<'a, T: Type + DeserializeOwned + Send> ApiExtractor<'a> for FormBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(body_meta::<Self>())
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        if request.content_type().is_some_and(Self::check_content_type) {
            <Self as ParsePayload>::from_request(request, body).await
        } else {
            Err(unsupported(Self::CONTENT_TYPE).into())
        }
    }
}

/// How the documents show a body of one content type.
fn body_meta<T: Payload>() -> MetaRequest {
    let content = vec![MetaMediaType {
        content_type: T::CONTENT_TYPE,
        schema: T::schema_ref(),
    }];
    MetaRequest {
        description: None,
        content,
        required: true,
    }
}

/// Whether a `Content-Type` is this one, whatever its parameters.
pub(super) fn is_type(content_type: &str, expected: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// 415, naming what would be right.
pub(super) fn unsupported(expected: &str) -> Problem {
    let detail = format!("The body must be sent as `Content-Type: {expected}`.");
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "Unsupported media type",
        detail,
    )
}

/// A JSON object without duplicate keys.
pub(super) fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err(Problem::bad_request(
            "malformed_json",
            "The body must be a JSON object.",
        )),
        Err(error) if error.is_data() => Err(Problem::bad_request(
            "malformed_json",
            format!("A key stands twice in one object (line {}).", error.line()),
        )),
        Err(error) => {
            let detail = format!(
                "The body is not JSON (line {}, column {}).",
                error.line(),
                error.column()
            );
            Err(Problem::bad_request("malformed_json", detail))
        }
    }
}

/// JSON in which no object has a key twice (RFC 8259 §4 leaves open which one counts; ASVS 1.5.3).
/// Depth is bounded by serde_json, at 128.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Compares an object with the documented shape, field by field, and says all that is wrong.
fn check_shape<T: Type>(object: &Map<String, Value>) -> Result<(), Problem> {
    let mut registry = Registry::new();
    T::register(&mut registry);
    let MetaSchemaRef::Reference(name) = T::schema_ref() else {
        return Ok(());
    };
    let Some(schema) = registry.schemas.get(&name) else {
        return Ok(());
    };
    let known = |key: &str| schema.properties.iter().find(|(name, _)| *name == key);
    let mut errors = Vec::new();
    for key in object.keys().filter(|key| known(key).is_none()) {
        let shown: String = key.chars().take(64).collect();
        errors.push(FieldError::new(
            shown,
            "unknown_field",
            "is not a field of this request",
        ));
    }
    for name in schema
        .required
        .iter()
        .filter(|name| !object.contains_key(**name))
    {
        errors.push(FieldError::new(*name, "missing_field", "is missing"));
    }
    for (name, property) in &schema.properties {
        let Some(value) = object.get(*name) else {
            continue;
        };
        let required = schema.required.contains(name);
        if let Some(choices) = refused_choice(value, property, required, &registry) {
            let detail = format!("must be one of {choices}");
            errors.push(FieldError::new(*name, "wrong_value", detail));
        } else if let Some(expected) = mismatch(value, property, required) {
            errors.push(FieldError::new(
                *name,
                "wrong_type",
                format!("must be {expected}"),
            ));
        }
    }
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let code = first.code;
    Err(Problem::bad_request(
        code,
        "The body does not have the documented shape; `errors` names each field.",
    )
    .with_errors(errors))
}

/// The documented choices of a property, if the value is none of them.
fn refused_choice(
    value: &Value,
    property: &MetaSchemaRef,
    required: bool,
    registry: &Registry,
) -> Option<String> {
    let name = match property {
        MetaSchemaRef::Reference(name) => name,
        MetaSchemaRef::Inline(schema) => match schema.all_of.first()? {
            MetaSchemaRef::Reference(name) => name,
            MetaSchemaRef::Inline(_) => return None,
        },
    };
    let choices = &registry.schemas.get(name)?.enum_items;
    let fits = choices.contains(value) || (value.is_null() && !required);
    let shown = || {
        choices
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    (!choices.is_empty() && !fits).then(shown)
}

/// The documented type of a property, if the value is not of it.
fn mismatch(value: &Value, property: &MetaSchemaRef, required: bool) -> Option<&'static str> {
    let MetaSchemaRef::Inline(schema) = property else {
        return None;
    };
    if value.is_null() && !required {
        return None;
    }
    let (fits, expected) = expected_type(value, schema);
    (!fits).then_some(expected)
}

fn expected_type(value: &Value, schema: &MetaSchema) -> (bool, &'static str) {
    match schema.ty {
        "string" => (value.is_string(), "a string"),
        "boolean" => (value.is_boolean(), "true or false"),
        "integer" => {
            let whole = value.as_u64().is_some_and(|n| u32::try_from(n).is_ok());
            (whole, "a whole number from 0 to 4294967295")
        }
        "array" => (
            value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string)),
            "a list of strings",
        ),
        "object" => (value.is_object(), "an object"),
        _ => (true, "another type"),
    }
}
