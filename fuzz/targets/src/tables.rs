//! Expressions of tables: parsed, and carried out on an item.

use std::collections::BTreeMap;

use kcl_tables::expr::{Placeholders, parse_condition, parse_projection, parse_update, project};
use kcl_tables::value::{Item, item_from_wire, item_to_wire};
use wire::Structure;
use wire::dynamodb::PutItemInput;

/// What the expressions speak of.
const ITEM: &str = r##"{"TableName":"t","Item":{"a":{"N":"1.5"},"b":{"S":"text"},"c":{"L":[{"N":"1"},{"M":{"d":{"S":"x"}}},{"B":"AP8="}]},
    "m":{"M":{"k":{"N":"7"},"l":{"L":[]}}},"s":{"SS":["x","y"]},"n":{"NS":["1","2.50"]},"t":{"BOOL":true},"z":{"NULL":true}},
    "ExpressionAttributeNames":{"#a":"a","#m":"m","#x":"gone"},
    "ExpressionAttributeValues":{":a":{"N":"1"},":b":{"S":"te"},":l":{"L":[{"S":"y"}]},":s":{"SS":["y","z"]},":t":{"S":"N"},":big":{"N":"9E125"}}}"##;

fn input() -> PutItemInput {
    let value = wire::json::parse(ITEM.as_bytes()).expect("JSON");
    let (value, _) =
        wire::conform::conform(value, PutItemInput::schema(), wire::conform::Notation::Json).expect("a request");
    wire::Shape::from_value(value).expect("a request")
}

/// An expression. Promises: it is refused in words or can be carried out; what an update makes can be answered and read again.
pub fn tables(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let given = input();
    let item: Item = item_from_wire(given.item).expect("an item");
    let placeholders = || {
        let names: Option<BTreeMap<String, String>> = given.expression_attribute_names.clone();
        Placeholders::new(names, given.expression_attribute_values.clone(), true).expect("placeholders")
    };
    match parse_condition("ConditionExpression", text, &mut placeholders()) {
        Ok(condition) => {
            let _ = (condition.holds(&item), condition.holds(&Item::new()));
        }
        Err(error) => assert_eq!(error.code, "ValidationException"),
    }
    if let Ok(paths) = parse_projection(text, &mut placeholders()) {
        let left = project(&item, &paths);
        assert!(left.keys().all(|name| item.contains_key(name)));
    }
    if let Ok(update) = parse_update(text, &mut placeholders())
        && let Ok(after) = update.apply(&item)
    {
        assert_eq!(item_from_wire(item_to_wire(&after)).ok().as_ref(), Some(&after));
    }
}
