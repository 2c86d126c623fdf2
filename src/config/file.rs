//! The configuration file: strict YAML, each setting by its name.

use super::document::ConfigDocument;
use super::fault::{ConfigError, Value};
use super::layers::{Given, Layer, ValueOrigin};
use super::setting::{Setting, Takes};
use super::settings::SETTINGS;
use super::values::scalar;
use crate::yaml::{Content, FieldPath, Node, Step, nearest};

/// What a file has. A setting without a value (`listen:`) is as good as none, as everywhere in
/// Kubernetes.
pub(super) fn layer(document: &ConfigDocument) -> Result<Layer<'_>, ConfigError> {
    let top = FieldPath::default();
    let mut layer = Layer::new();
    match &document.root.content {
        Content::Null => {}
        Content::Object(fields) => collect(document, fields, &top, &mut layer)?,
        _ => {
            let message = "write settings by name, e.g. class: sluice".to_owned();
            return Err(document.error(&top, message));
        }
    }
    Ok(layer)
}

fn collect<'a>(
    document: &'a ConfigDocument,
    fields: &[(String, Node)],
    group: &FieldPath,
    layer: &mut Layer<'a>,
) -> Result<(), ConfigError> {
    for (key, value) in fields {
        let field = group.clone().then(Step::Key(key.clone()));
        let name = field.to_string();
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
            let values = values(document, setting, value, &field)?;
            if !values.is_empty() {
                layer.insert(setting.name, Given { values, origin: ValueOrigin::File(document) });
            }
        } else if groups().any(|group| group == name) {
            match &value.content {
                Content::Null => {}
                Content::Object(fields) => collect(document, fields, &field, layer)?,
                _ => return Err(document.error(&field, group_needs_names(&name))),
            }
        } else {
            return Err(document.error(&field, unknown_setting(&name)));
        }
    }
    Ok(())
}

/// The values of one setting; none if it is empty.
fn values(
    document: &ConfigDocument,
    setting: &Setting,
    value: &Node,
    field: &FieldPath,
) -> Result<Vec<Value>, ConfigError> {
    let fault = |message| document.error(field, message);
    match (&value.content, setting.takes) {
        (Content::Null, _) => Ok(Vec::new()),
        (Content::List(items), Takes::Many) => {
            let items = items.iter().enumerate().map(|(index, value)| {
                let field = field.clone().then(Step::Index(index));
                item(document, value, &field)
            });
            items.collect()
        }
        (_, Takes::Many) => Err(fault("takes a list; write each item after a -".to_owned())),
        (Content::Object(_), Takes::Object) => Ok(vec![Value::Object(value.clone())]),
        (_, Takes::Object) => Err(fault("takes an object".to_owned())),
        _ => Ok(vec![Value::Text(scalar(value).map_err(fault)?)]),
    }
}

fn item(document: &ConfigDocument, item: &Node, field: &FieldPath) -> Result<Value, ConfigError> {
    match &item.content {
        Content::Object(_) => Ok(Value::Object(item.clone())),
        _ => scalar(item).map(Value::Text).map_err(|message| document.error(field, message)),
    }
}

fn unknown_setting(name: &str) -> String {
    let outside = |group: &&str| !name.starts_with(&format!("{group}."));
    let known = SETTINGS.iter().map(|setting| setting.name).chain(groups().filter(outside));
    match nearest(name, known) {
        Some(known) => format!("unknown setting; did you mean {known}?"),
        None => "unknown setting; sluice run --help lists all".to_owned(),
    }
}

fn group_needs_names(group: &str) -> String {
    let inside = SETTINGS.iter().filter_map(|setting| setting.name.strip_prefix(group));
    let names: Vec<_> = inside.filter_map(|name| name.strip_prefix('.')).collect();
    format!("takes settings by name: {}", names.join(", "))
}

/// `drain` of `drain.delay`.
fn groups() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.name.rsplit_once('.')).map(|(group, _)| group)
}
