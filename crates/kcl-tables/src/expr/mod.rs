//! Expressions: conditions, key conditions, filters, updates and projections, from their text to something that can be carried out on an
//! item. Pure: it knows items and nothing of tables. Names and values are put in while parsing, so that an expression stands for
//! itself afterwards.

mod condition;
mod lexer;
mod parser;
mod path;
mod update;

pub use condition::{Comparator, Condition, Operand};
pub use parser::{Placeholders, parse_condition, parse_projection, parse_update};
pub use path::{Path, Step, project};
pub use update::{SetValue, Update, UpdateError};

#[cfg(test)]
mod tests {
    use wire::dynamodb::AttributeValue;

    use super::*;
    use crate::number::Number;
    use crate::value::{Attr, Item};

    fn n(text: &str) -> Attr {
        Attr::N(text.parse::<Number>().unwrap())
    }

    fn s(text: &str) -> Attr {
        Attr::S(text.to_owned())
    }

    fn item() -> Item {
        let inner = Item::from([
            ("k".to_owned(), n("7")),
            ("l".to_owned(), Attr::L(vec![s("x"), s("y")])),
        ]);
        let list = Attr::L(vec![n("0"), n("1"), n("2"), Attr::M(inner.clone())]);
        Item::from([
            ("a".to_owned(), n("1.50")),
            ("b".to_owned(), s("t\u{e9}xt")),
            ("l".to_owned(), list),
            ("m".to_owned(), Attr::M(inner)),
            ("s".to_owned(), Attr::Ss(["x".to_owned(), "y".to_owned()].into())),
        ])
    }

    /// `#a` is `a`; `:1`, `:x` and `:s` have values.
    fn placeholders() -> Placeholders {
        let value = |attr: &Attr| crate::value::to_wire(attr);
        let values: [(&str, AttributeValue); 4] = [
            (":1", value(&n("1"))),
            (":x", value(&s("x"))),
            (":s", value(&Attr::Ss(["x".to_owned(), "z".to_owned()].into()))),
            (":l", value(&Attr::L(vec![s("new")]))),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value));
        let names = [("#a".to_owned(), "a".to_owned())];
        Placeholders::new(Some(names.into()), Some(values.into()), true).unwrap()
    }

    fn holds(text: &str) -> bool {
        parse_condition("ConditionExpression", text, &mut placeholders())
            .unwrap()
            .holds(&item())
    }

    fn refusal(text: &str) -> String {
        parse_condition("ConditionExpression", text, &mut placeholders())
            .unwrap_err()
            .message
    }

    fn update(text: &str) -> Result<Item, UpdateError> {
        parse_update(text, &mut placeholders()).unwrap().apply(&item())
    }

    #[test]
    fn and_binds_tighter_than_or_and_not_tightest() {
        assert!(holds("a = :1 AND a = :1 OR a > :1"));
        assert!(!holds("a = :1 AND (a = :1 OR a > :1)"));
        assert!(holds("NOT a = :1 OR a = :1"));
        assert!(!holds("NOT (a > :1 OR a = :1)"));
        assert!(holds("not a = :1 and #a > :1"));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_unequal_and_has_no_order() {
        for text in [
            "gone <> :1",
            "b <> :1",
            "contains(m.l, :x)",
            "contains(s, :x)",
            "l[3].l[0] = :x",
            "size(m) > :1",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "gone = :1",
            "gone < :1",
            "b > :1",
            "l[9] = :1",
            "size(gone) = :1",
            "size(a) = :1",
            "begins_with(a, :x)",
            "gone <> nowhere",
        ] {
            assert!(!holds(text), "{text}");
        }
        let four = Placeholders::new(
            None,
            Some([(":4".to_owned(), crate::value::to_wire(&n("4")))].into()),
            true,
        );
        let length = parse_condition("ConditionExpression", "size(b) = :4", &mut four.unwrap()).unwrap();
        assert!(
            length.holds(&item()),
            "a text has as many as it has characters, not bytes"
        );
    }

    #[test]
    fn refusals_are_in_the_services_words() {
        assert_eq!(
            refusal("a = = :1"),
            "Invalid ConditionExpression: Syntax error; token: \"=\", near: \"= = :1\""
        );
        assert_eq!(
            refusal("a ="),
            "Invalid ConditionExpression: Syntax error; token: \"<EOF>\", near: \"=\""
        );
        assert_eq!(
            refusal(" "),
            "Invalid ConditionExpression: The expression can not be empty;"
        );
        let value = "Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :no";
        assert_eq!(refusal("a = :no"), value);
        let name = "Invalid ConditionExpression: An expression attribute name used in the document path is not defined; attribute name: #no";
        assert_eq!(refusal("#no = :1"), name);
        assert_eq!(
            refusal("never(a)"),
            "Invalid ConditionExpression: Invalid function name; function: never"
        );
        let mut unused = placeholders();
        parse_condition("ConditionExpression", "#a = :1", &mut unused).unwrap();
        let message = unused.finish().unwrap_err().message;
        assert_eq!(
            message,
            "Value provided in ExpressionAttributeValues unused in expressions: keys: {:l, :s, :x}"
        );
        let twice = parse_update("SET m.k = :1, m = :x", &mut placeholders())
            .unwrap_err()
            .message;
        assert!(twice.ends_with("path one: [m], path two: [m, k]"), "{twice}");
    }

    #[test]
    fn updates_take_every_value_from_the_item_as_it_was() {
        let after = update("SET a = a + :1, copy = a, l[1] = :x, l[9] = :x REMOVE l[0], l[2] ADD s :s").unwrap();
        assert_eq!((&after["a"], &after["copy"]), (&n("2.5"), &n("1.5")));
        let inner = item()["m"].clone();
        assert_eq!(after["l"], Attr::L(vec![s("x"), inner, s("x")]));
        assert_eq!(
            after["s"],
            Attr::Ss(["x".to_owned(), "y".to_owned(), "z".to_owned()].into())
        );
        let after = update("SET m.l = list_append(m.l, :l), fresh = if_not_exists(gone, :1) - :1 DELETE s :s").unwrap();
        assert_eq!(after["fresh"], n("0"));
        assert_eq!(after["s"], Attr::Ss(["y".to_owned()].into()));
        assert_eq!(update("SET a = gone"), Err(UpdateError::Missing));
        assert_eq!(update("SET a = b + :1"), Err(UpdateError::WrongType));
        assert_eq!(update("SET gone.k = :1"), Err(UpdateError::BadPath));
        assert_eq!(update("ADD b :1"), Err(UpdateError::WrongType));
    }

    #[test]
    fn a_projection_keeps_the_shape_and_moves_elements_together() {
        let paths = parse_projection("l[3].l[1], l[1], m.k, gone, l[17]", &mut placeholders()).unwrap();
        let left = project(&item(), &paths);
        let inner = Attr::M(Item::from([("l".to_owned(), Attr::L(vec![s("y")]))]));
        let expected = Item::from([
            ("l".to_owned(), Attr::L(vec![n("1"), inner])),
            ("m".to_owned(), Attr::M(Item::from([("k".to_owned(), n("7"))]))),
        ]);
        assert_eq!(left, expected);
    }
}
