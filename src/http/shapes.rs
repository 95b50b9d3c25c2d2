//! What the API document says of JSON bodies beyond what the types say by themselves.
//!
//! Every request refuses unknown fields and takes null for an optional one that is not given; poem-openapi
//! writes neither down, so that a tool which believes the document would send what is refused and not send
//! what is accepted.

use poem_openapi::registry::{MetaApi, MetaSchema, MetaSchemaRef, Registry};

/// Stands for `false`, which the types of the document cannot say; see [`written`].
const CLOSED: &str = "no other fields";

/// Closes the schemas of all JSON bodies of these operations, and what they are made of.
pub(super) fn close_requests(apis: &[MetaApi], registry: &mut Registry) {
    let operations = apis
        .iter()
        .flat_map(|api| api.paths.iter().flat_map(|path| &path.operations));
    let bodies = operations
        .filter_map(|operation| operation.request.as_ref())
        .flat_map(|request| &request.content)
        .filter(|content| content.content_type.starts_with("application/json"));
    let mut open: Vec<String> = bodies.flat_map(|body| named(&body.schema)).collect();
    while let Some(name) = open.pop() {
        let Some(schema) = registry.schemas.get_mut(&name) else {
            continue;
        };
        let is_done = schema.additional_properties.is_some();
        if is_done || schema.properties.is_empty() {
            continue;
        }
        let fields = schema.properties.iter();
        open.extend(fields.flat_map(|(_, field)| named(field)));
        close(schema);
    }
}

fn close(schema: &mut MetaSchema) {
    let mut nothing = MetaSchema::ANY;
    nothing.title = Some(CLOSED.to_owned());
    schema.additional_properties = Some(Box::new(MetaSchemaRef::Inline(Box::new(nothing))));
    for (_, field) in &mut schema.properties {
        if let MetaSchemaRef::Inline(field) = field
            && field.format == Some("uint32")
        {
            (field.minimum, field.maximum) = (Some(0.0), Some(f64::from(u32::MAX)));
        }
    }
    let required = &schema.required;
    let optional = schema.properties.iter_mut();
    for (_, field) in optional.filter(|(name, _)| !required.contains(name)) {
        match field {
            MetaSchemaRef::Inline(field) => field.nullable = true,
            MetaSchemaRef::Reference(_) => {
                let mut nullable = MetaSchema::ANY;
                nullable.nullable = true;
                nullable.all_of.push(field.clone());
                *field = MetaSchemaRef::Inline(Box::new(nullable));
            }
        }
    }
}

/// The schemas that one refers to by name.
fn named(schema: &MetaSchemaRef) -> Vec<String> {
    match schema {
        MetaSchemaRef::Reference(name) => vec![name.clone()],
        MetaSchemaRef::Inline(schema) => {
            let parts = schema.all_of.iter().chain(&schema.any_of);
            parts
                .chain(schema.items.as_deref())
                .flat_map(named)
                .collect()
        }
    }
}

/// The document with `false` where this module could only write a word for it.
pub(super) fn written(document: &str) -> String {
    const KEY: &str = "\"additionalProperties\": ";
    let mut parts = document.split(KEY);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str(KEY);
        let closed = part.split_once('}').filter(|(schema, _)| {
            let words = schema.trim_start_matches('{').trim();
            words == format!("\"title\": \"{CLOSED}\"")
        });
        match closed {
            Some((_, rest)) => {
                whole.push_str("false");
                whole.push_str(rest);
            }
            None => whole.push_str(part),
        }
    }
    whole
}
