//! The workers that are processes of `sql-worker application`.

use async_trait::async_trait;
use sql::application::{Command, Event, JobSpec};
use sql::running::{CheckFailed, Program, Running};

use crate::limits;
use crate::ports::{CheckError, Worker, Workers};

/// Processes of one program, or none where there is no such program.
#[derive(Debug)]
pub struct SqlWorkers(Result<Program, String>);

impl SqlWorkers {
    /// Workers of this program. One that is not there is told of when an application is to run.
    pub fn new(program: std::path::PathBuf) -> Self {
        SqlWorkers(Program::find(program).map_err(|error| error.to_string()))
    }

    fn program(&self) -> Result<&Program, CheckError> {
        self.0.as_ref().map_err(|why| CheckError::Missing(why.clone()))
    }
}

#[async_trait]
impl Workers for SqlWorkers {
    async fn check(&self, spec: &JobSpec) -> Result<(), CheckError> {
        let checked = self.program()?.check(spec, limits::CHECK_WITHIN).await;
        checked.map_err(|error| match error {
            CheckFailed::Script(why) => CheckError::Script(why),
            CheckFailed::Unable(..) => CheckError::Missing(error.to_string()),
            CheckFailed::Worker(why) => CheckError::Failed(why),
        })
    }

    async fn start(&self, spec: &JobSpec) -> Result<Box<dyn Worker>, String> {
        let program = self.program().map_err(|error| error.to_string())?;
        let running = program.start(spec).await.map_err(|error| error.to_string())?;
        Ok(Box::new(running))
    }
}

#[async_trait]
impl Worker for Running {
    async fn next(&mut self) -> Result<Option<Event>, String> {
        Running::next(self).await.map_err(|error| error.to_string())
    }

    async fn send(&mut self, command: &Command) -> Result<(), String> {
        Running::send(self, command).await.map_err(|error| error.to_string())
    }
}
