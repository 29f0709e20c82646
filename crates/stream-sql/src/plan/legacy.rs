//! `GROUP BY TUMBLE(ts, INTERVAL ...)`, Flink's older way to group by windows, as the newer one: the table in a window
//! function, grouped by its columns, of which `TUMBLE_START(...)` and its like are others.

use std::ops::ControlFlow;

use datafusion_common::{Result, not_impl_err, plan_datafusion_err};
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SetExpr,
    TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::relation::WINDOW_COLUMNS;
use super::script;

/// The functions, and their newer names.
const WINDOWS: [&str; 3] = ["TUMBLE", "HOP", "SESSION"];

/// Rewrites every query within a query.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    struct Queries(Result<()>);
    impl VisitorMut for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            self.0 = set(&mut query.body);
            match self.0 {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        }
    }
    let mut queries = Queries(Ok(()));
    let _ = VisitMut::visit(query, &mut queries);
    queries.0
}

fn set(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(one) => select(one),
        SetExpr::SetOperation { left, right, .. } => {
            set(left)?;
            set(right)
        }
        _ => Ok(()),
    }
}

fn select(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else {
        return Ok(());
    };
    let Some(at) = keys.iter().position(|key| window(key).is_some()) else {
        return Ok(());
    };
    let Some((name, arguments)) = window(&keys.remove(at)) else {
        return Ok(());
    };
    let [from] = select.from.as_mut_slice() else {
        return not_impl_err!("GROUP BY {name}(...) is there over one table");
    };
    let TableFactor::Table { name: table, alias, .. } = &from.relation else {
        return not_impl_err!("GROUP BY {name}(...) is there over a table or a view; CREATE VIEW makes one of a query");
    };
    if !from.joins.is_empty() {
        return not_impl_err!("GROUP BY {name}(...) is there over one table; CREATE VIEW makes one of a join");
    }
    let Some((time, lengths)) = arguments.split_first() else {
        return not_impl_err!("GROUP BY {name} without a column of time");
    };
    let time = last(time).ok_or_else(|| plan_datafusion_err!("{name} is of a column of time, not of '{time}'"))?;
    let mut data = table.to_string();
    if name == "SESSION" && !keys.is_empty() {
        let columns = keys.iter().map(|key| last(key).map(|key| key.to_string()));
        let columns = columns.collect::<Option<Vec<String>>>();
        let Some(columns) = columns else {
            return not_impl_err!("GROUP BY SESSION(...) is there beside columns alone");
        };
        data = format!("`{}`({data}, {})", script::PARTITIONED, columns.join(", "));
    }
    let lengths: Vec<String> = lengths.iter().map(ToString::to_string).collect();
    let text = format!("{name}({data}, DESCRIPTOR({time}), {})", lengths.join(", "));
    let expr = script::parse_expression(&text).map_err(|error| plan_datafusion_err!("{}", error.message))?;
    let called = alias.clone().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote(
            '`',
            table
                .0
                .last()
                .map(ToString::to_string)
                .unwrap_or_default()
                .trim_matches('`'),
        ),
        columns: Vec::new(),
        at: None,
    });
    from.relation = TableFactor::TableFunction {
        expr,
        alias: Some(called),
    };
    keys.extend(WINDOW_COLUMNS.iter().map(|name| column(name)));
    let mut columns = Columns(name);
    for item in &mut select.projection {
        let _ = VisitMut::visit(item, &mut columns);
    }
    if let Some(having) = &mut select.having {
        let _ = VisitMut::visit(having, &mut columns);
    }
    Ok(())
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

/// The last part of a column's name.
fn last(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// A window function among the keys, and its arguments.
fn window(key: &Expr) -> Option<(&'static str, Vec<Expr>)> {
    let Expr::Function(Function {
        name,
        args: FunctionArguments::List(list),
        ..
    }) = key
    else {
        return None;
    };
    let name = name.to_string();
    let known = WINDOWS.iter().find(|window| name.eq_ignore_ascii_case(window))?;
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    Some((known, arguments.collect::<Option<Vec<Expr>>>()?))
}

/// `TUMBLE_START(...)` becomes `window_start`.
struct Columns(&'static str);

impl VisitorMut for Columns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = function.name.to_string().to_ascii_uppercase();
            let other = match name.strip_prefix(self.0) {
                Some("_START") => Some("window_start"),
                Some("_END") => Some("window_end"),
                Some("_ROWTIME") => Some("window_time"),
                _ => None,
            };
            if let Some(other) = other {
                *expr = column(other);
            }
        }
        ControlFlow::Continue(())
    }
}
