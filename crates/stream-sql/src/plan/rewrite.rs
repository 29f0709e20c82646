//! Expressions that DataFusion has under another form, or not at all: put into one that it has, in the parser's tree.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    CeilFloorKind, CharacterLength, DataType, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, Interval, ObjectName, Value, VisitMut, VisitorMut,
};

use super::interval;

/// Rewrites every expression of a query, or of another one.
pub(super) fn rewrite(within: &mut impl VisitMut) {
    let _ = within.visit(&mut Expressions);
}

struct Expressions;

impl VisitorMut for Expressions {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(other) = other(expr) {
            *expr = other;
        }
        ControlFlow::Continue(())
    }
}

fn other(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let from = substring_from.as_deref().cloned().unwrap_or_else(|| number(1));
            let length = substring_for.as_deref().cloned();
            Some(call(
                "substr",
                [expr.as_ref().clone(), from].into_iter().chain(length).collect(),
            ))
        }
        // A cast to a type of a length cuts.
        Expr::Cast {
            expr: inner,
            data_type: DataType::Varchar(Some(CharacterLength::IntegerLength { length, .. })),
            kind,
            array,
            format,
        } => {
            let cast = Expr::Cast {
                kind: kind.clone(),
                expr: inner.clone(),
                data_type: DataType::String(None),
                array: *array,
                format: format.clone(),
            };
            Some(call("left", vec![cast, number(i64::try_from(*length).ok()?)]))
        }
        // From one unit to another.
        Expr::Interval(interval) if interval.last_field.is_some() => {
            let length = interval::of_sql(expr)?;
            Some(Expr::Interval(Interval {
                value: Box::new(Expr::value(Value::SingleQuotedString(length.to_string()))),
                leading_field: Some(DateTimeField::Milliseconds),
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }))
        }
        Expr::Floor {
            expr: inner,
            field: CeilFloorKind::DateTimeField(field),
        } if *field != DateTimeField::NoDateTime => {
            let unit = field.to_string().to_ascii_lowercase();
            let unit = Expr::value(Value::SingleQuotedString(unit));
            Some(call("date_trunc", vec![unit, inner.as_ref().clone()]))
        }
        _ => None,
    }
}

fn number(number: i64) -> Expr {
    Expr::value(Value::Number(number.to_string(), false))
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let argument = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(argument).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
