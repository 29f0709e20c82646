//! What expressions of a pattern ask of other rows.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, plan_datafusion_err, plan_err};
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use datafusion_sql::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Value, VisitMut, VisitorMut,
};

use super::pattern::Variable;
use super::{Asked, extended};
use crate::plan::catalog::Rules;

/// A column that is taken from other rows.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Slot {
    /// Of which variable, by its place; none: of all.
    pub variable: Option<usize>,
    pub of: Picked,
}

/// What is taken.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Picked {
    /// A value of the n-th row from the first.
    First(usize, Expr),
    /// A value of the n-th row from the last.
    Last(usize, Expr),
    /// An aggregate of all rows: a plan of it over the rows' columns.
    Aggregate(Arc<LogicalPlan>),
}

impl Slot {
    pub fn data_type(&self, _rules: &Rules) -> Result<DataType> {
        match &self.of {
            Picked::First(_, value) | Picked::Last(_, value) => match value {
                Expr::Cast(cast) => Ok(cast.field.data_type().clone()),
                other => other.get_type(&DFSchema::empty()),
            },
            Picked::Aggregate(plan) => Ok(plan.schema().field(0).data_type().clone()),
        }
    }
}

/// Reads expressions of a pattern.
pub(super) struct Reader<'a> {
    pub context: &'a mut dyn RelationPlannerContext,
    pub rules: &'a Arc<Rules>,
    pub names: &'a DFSchema,
    pub variables: &'a [Variable],
    pub time: usize,
}

impl Reader<'_> {
    /// The condition of a variable: its own columns are those of the row that is looked at.
    pub fn define(&mut self, variable: &str, expr: ast::Expr) -> Result<Asked> {
        let asked = self.read(Some(variable), expr)?;
        let schema = asked.schema(self.names, self.rules)?;
        match asked.expr.get_type(&schema)? {
            DataType::Boolean => Ok(asked),
            other => plan_err!(
                "DEFINE of '{variable}' is {}, not a condition",
                crate::plan::types::name(&other)
            ),
        }
    }

    /// A measure: columns are those of the last row.
    pub fn measure(&mut self, expr: ast::Expr) -> Result<Asked> {
        self.read(None, expr)
    }

    fn read(&mut self, defined: Option<&str>, mut expr: ast::Expr) -> Result<Asked> {
        let mut finder = Finder {
            reader: self,
            defined,
            slots: Vec::new(),
        };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut finder) {
            return Err(error);
        }
        let slots = finder.slots;
        let schema = extended(self.names, &slots, self.rules)?;
        let expr = self.context.sql_to_expr(expr, &schema)?;
        let expr = self.rules.analyze_expression(expr, &schema)?;
        Ok(Asked { expr, slots })
    }

    fn variable(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|variable| variable.name == name)
    }

    /// A value over the columns of one row, with its type said.
    fn value(&mut self, expr: ast::Expr) -> Result<Expr> {
        let value = self.context.sql_to_expr(expr, self.names)?;
        let value = self.rules.analyze_expression(value, self.names)?;
        let of = value.get_type(self.names)?;
        Ok(Expr::Cast(datafusion_expr::expr::Cast::new(Box::new(value), of)))
    }

    fn aggregate(&mut self, function: Function) -> Result<Arc<LogicalPlan>> {
        let expr = self.context.sql_to_expr(ast::Expr::Function(function), self.names)?;
        let empty = LogicalPlan::EmptyRelation(datafusion_expr::EmptyRelation {
            produce_one_row: false,
            schema: Arc::new(self.names.clone()),
        });
        let aggregate = Aggregate::try_new(Arc::new(empty), Vec::new(), vec![expr])?;
        Ok(Arc::new(self.rules.analyze(LogicalPlan::Aggregate(aggregate))?))
    }
}

/// Goes through an expression and puts columns in the place of what other rows are asked.
struct Finder<'a, 'b> {
    reader: &'a mut Reader<'b>,
    defined: Option<&'a str>,
    slots: Vec<Slot>,
}

impl VisitorMut for Finder<'_, '_> {
    type Break = datafusion_common::DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Self::Break> {
        match self.replaced(expr) {
            Ok(Some(other)) => {
                *expr = other;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Finder<'_, '_> {
    fn slot(&mut self, variable: Option<usize>, of: Picked) -> ast::Expr {
        let name = format!("${}", self.slots.len());
        self.slots.push(Slot { variable, of });
        ast::Expr::Identifier(Ident::with_quote('`', name))
    }

    fn replaced(&mut self, expr: &ast::Expr) -> Result<Option<ast::Expr>> {
        match expr {
            ast::Expr::Function(function) => self.function(function),
            ast::Expr::CompoundIdentifier(parts) => {
                let Some((first, rest)) = parts.split_first() else {
                    return Ok(None);
                };
                let Some(variable) = self.reader.variable(&first.value) else {
                    return Ok(None);
                };
                let column = plain(rest);
                if self.defined == Some(first.value.as_str()) {
                    return Ok(Some(column));
                }
                let value = self.reader.value(column)?;
                Ok(Some(self.slot(Some(variable), Picked::Last(0, value))))
            }
            ast::Expr::Identifier(name) if self.defined.is_none() && !name.value.starts_with('$') => {
                let value = self.reader.value(expr.clone())?;
                Ok(Some(self.slot(None, Picked::Last(0, value))))
            }
            _ => Ok(None),
        }
    }

    fn function(&mut self, function: &Function) -> Result<Option<ast::Expr>> {
        let name = function.name.to_string().to_ascii_uppercase();
        let arguments = match &function.args {
            FunctionArguments::List(list) => list.args.clone(),
            _ => Vec::new(),
        };
        match name.as_str() {
            "FIRST" | "LAST" => {
                let (variable, value, number) = self.picked(&name, arguments)?;
                let picked = match name.as_str() {
                    "FIRST" => Picked::First(number, value),
                    _ => Picked::Last(number, value),
                };
                Ok(Some(self.slot(variable, picked)))
            }
            "MATCH_ROWTIME" => {
                let time = self.reader.names.field(self.reader.time).name().clone();
                let value = self.reader.value(ast::Expr::Identifier(Ident::with_quote('`', time)))?;
                Ok(Some(self.slot(None, Picked::Last(0, value))))
            }
            "PREV" | "NEXT" => {
                plan_err!("{name} is not there, as in Flink; LAST(variable.column, 1) is the row before")
            }
            _ if self.reader.rules.is_aggregate(&name) => {
                let mut function = function.clone();
                let variable = self.strip(&mut function)?;
                let plan = self.reader.aggregate(function)?;
                Ok(Some(self.slot(variable, Picked::Aggregate(plan))))
            }
            _ => Ok(None),
        }
    }

    /// `(variable.x, n)`
    fn picked(&mut self, name: &str, arguments: Vec<FunctionArg>) -> Result<(Option<usize>, Expr, usize)> {
        let mut arguments = arguments.into_iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            other => plan_err!("{name}({other}) is not there"),
        });
        let Some(value) = arguments.next() else {
            return plan_err!("{name} without a column");
        };
        let mut value = value?;
        let number = match arguments.next() {
            None => 0,
            Some(number) => {
                number_of(&number?).ok_or_else(|| plan_datafusion_err!("{name} counts rows by a whole number"))?
            }
        };
        let variable = self.stripped(&mut value)?;
        Ok((variable, self.reader.value(value)?, number))
    }

    /// Takes the variable out of an aggregate's arguments.
    fn strip(&mut self, function: &mut Function) -> Result<Option<usize>> {
        let FunctionArguments::List(list) = &mut function.args else {
            return Ok(None);
        };
        let mut variable = None;
        for argument in &mut list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(ObjectName(parts))) => {
                    let name = parts.first().map(ToString::to_string).unwrap_or_default();
                    variable = self.reader.variable(&name);
                    *argument = FunctionArg::Unnamed(FunctionArgExpr::Wildcard);
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => variable = variable.or(self.stripped(expr)?),
                _ => {}
            }
        }
        Ok(variable)
    }

    /// Takes the variable out of an expression, in which there may be one alone.
    fn stripped(&mut self, expr: &mut ast::Expr) -> Result<Option<usize>> {
        let mut stripper = Stripper {
            variables: self.reader.variables,
            found: Vec::new(),
        };
        let _ = VisitMut::visit(expr, &mut stripper);
        let mut found = stripper.found;
        found.dedup();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => plan_err!("An aggregate or FIRST and LAST are of one variable of the PATTERN, not of several"),
        }
    }
}

/// `A.x` becomes `x`.
struct Stripper<'a> {
    variables: &'a [Variable],
    found: Vec<usize>,
}

impl VisitorMut for Stripper<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::CompoundIdentifier(parts) = expr
            && let Some((first, rest)) = parts.split_first()
            && let Some(at) = self.variables.iter().position(|variable| variable.name == first.value)
        {
            self.found.push(at);
            *expr = plain(rest);
        }
        ControlFlow::Continue(())
    }
}

fn plain(parts: &[Ident]) -> ast::Expr {
    match parts {
        [one] => ast::Expr::Identifier(one.clone()),
        more => ast::Expr::CompoundIdentifier(more.to_vec()),
    }
}

fn number_of(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}
