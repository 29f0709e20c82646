//! What is said of applications of Flink: checkpoints, monitoring and parallelism, each with AWS's defaults, which
//! stand whatever is said beside the type DEFAULT.

use wire::kinesisanalyticsv2::{
    CheckpointConfigurationDescription, CheckpointConfigurationUpdate, ConfigurationType,
    FlinkApplicationConfiguration, FlinkApplicationConfigurationDescription, FlinkApplicationConfigurationUpdate,
    LogLevel, MetricsLevel, MonitoringConfigurationDescription, MonitoringConfigurationUpdate,
    ParallelismConfigurationDescription, ParallelismConfigurationUpdate,
};

const CHECKPOINT_INTERVAL_MS: i64 = 60_000;
const CHECKPOINT_PAUSE_MS: i64 = 5_000;

fn checkpoints(
    kind: ConfigurationType,
    enabled: Option<bool>,
    interval: Option<i64>,
    pause: Option<i64>,
) -> CheckpointConfigurationDescription {
    CheckpointConfigurationDescription {
        checkpoint_interval: Some(interval.unwrap_or(CHECKPOINT_INTERVAL_MS)),
        checkpointing_enabled: Some(enabled.unwrap_or(true)),
        configuration_type: Some(kind),
        min_pause_between_checkpoints: Some(pause.unwrap_or(CHECKPOINT_PAUSE_MS)),
    }
}

fn monitoring(
    kind: ConfigurationType,
    log: Option<LogLevel>,
    metrics: Option<MetricsLevel>,
) -> MonitoringConfigurationDescription {
    MonitoringConfigurationDescription {
        configuration_type: Some(kind),
        log_level: Some(log.unwrap_or(LogLevel::Info)),
        metrics_level: Some(metrics.unwrap_or(MetricsLevel::Application)),
    }
}

fn parallelism(
    kind: ConfigurationType,
    scaling: Option<bool>,
    parallelism: Option<i32>,
    per_kpu: Option<i32>,
) -> ParallelismConfigurationDescription {
    ParallelismConfigurationDescription {
        auto_scaling_enabled: Some(scaling.unwrap_or(true)),
        configuration_type: Some(kind),
        current_parallelism: Some(parallelism.unwrap_or(1)),
        parallelism: Some(parallelism.unwrap_or(1)),
        parallelism_per_kpu: Some(per_kpu.unwrap_or(1)),
    }
}

/// What a new application is given.
pub fn describe(given: FlinkApplicationConfiguration) -> FlinkApplicationConfigurationDescription {
    let default = ConfigurationType::Default;
    let mut described = FlinkApplicationConfigurationDescription {
        checkpoint_configuration_description: Some(checkpoints(default, None, None, None)),
        job_plan_description: None,
        monitoring_configuration_description: Some(monitoring(default, None, None)),
        parallelism_configuration_description: Some(parallelism(default, None, None, None)),
    };
    let given = FlinkApplicationConfigurationUpdate {
        checkpoint_configuration_update: given.checkpoint_configuration.map(|c| CheckpointConfigurationUpdate {
            checkpoint_interval_update: c.checkpoint_interval,
            checkpointing_enabled_update: c.checkpointing_enabled,
            configuration_type_update: Some(c.configuration_type),
            min_pause_between_checkpoints_update: c.min_pause_between_checkpoints,
        }),
        monitoring_configuration_update: given.monitoring_configuration.map(|m| MonitoringConfigurationUpdate {
            configuration_type_update: Some(m.configuration_type),
            log_level_update: m.log_level,
            metrics_level_update: m.metrics_level,
        }),
        parallelism_configuration_update: given.parallelism_configuration.map(|p| ParallelismConfigurationUpdate {
            auto_scaling_enabled_update: p.auto_scaling_enabled,
            configuration_type_update: Some(p.configuration_type),
            parallelism_per_kpu_update: p.parallelism_per_kpu,
            parallelism_update: p.parallelism,
        }),
    };
    update(&mut described, given);
    described
}

/// Changes what an update names; a return to DEFAULT forgets what was custom.
pub fn update(described: &mut FlinkApplicationConfigurationDescription, given: FlinkApplicationConfigurationUpdate) {
    let kind = |new: Option<ConfigurationType>, old: Option<ConfigurationType>| {
        new.or(old).unwrap_or(ConfigurationType::Default)
    };
    if let Some(c) = given.checkpoint_configuration_update {
        let old = described
            .checkpoint_configuration_description
            .take()
            .unwrap_or_default();
        let kind = kind(c.configuration_type_update, old.configuration_type);
        described.checkpoint_configuration_description = Some(match kind {
            ConfigurationType::Default => checkpoints(kind, None, None, None),
            ConfigurationType::Custom => checkpoints(
                kind,
                c.checkpointing_enabled_update.or(old.checkpointing_enabled),
                c.checkpoint_interval_update.or(old.checkpoint_interval),
                c.min_pause_between_checkpoints_update
                    .or(old.min_pause_between_checkpoints),
            ),
        });
    }
    if let Some(m) = given.monitoring_configuration_update {
        let old = described
            .monitoring_configuration_description
            .take()
            .unwrap_or_default();
        let kind = kind(m.configuration_type_update, old.configuration_type);
        described.monitoring_configuration_description = Some(match kind {
            ConfigurationType::Default => monitoring(kind, None, None),
            ConfigurationType::Custom => monitoring(
                kind,
                m.log_level_update.or(old.log_level),
                m.metrics_level_update.or(old.metrics_level),
            ),
        });
    }
    if let Some(p) = given.parallelism_configuration_update {
        let old = described
            .parallelism_configuration_description
            .take()
            .unwrap_or_default();
        let kind = kind(p.configuration_type_update, old.configuration_type);
        described.parallelism_configuration_description = Some(match kind {
            ConfigurationType::Default => parallelism(kind, None, None, None),
            ConfigurationType::Custom => parallelism(
                kind,
                p.auto_scaling_enabled_update.or(old.auto_scaling_enabled),
                p.parallelism_update.or(old.parallelism),
                p.parallelism_per_kpu_update.or(old.parallelism_per_kpu),
            ),
        });
    }
}

/// What a cluster is told before the statements.
pub fn settings(described: &FlinkApplicationConfigurationDescription) -> String {
    let mut settings = String::new();
    let mut set = |key: &str, value: &dyn std::fmt::Display| {
        settings.push_str(&format!("SET '{key}' = '{value}';\n"));
    };
    let checkpoints = described.checkpoint_configuration_description.as_ref();
    if let Some(checkpoints) = checkpoints.filter(|c| c.checkpointing_enabled != Some(false)) {
        let ms = |ms: Option<i64>| format!("{} ms", ms.unwrap_or(CHECKPOINT_INTERVAL_MS));
        set("execution.checkpointing.interval", &ms(checkpoints.checkpoint_interval));
        set(
            "execution.checkpointing.min-pause",
            &ms(checkpoints.min_pause_between_checkpoints),
        );
    }
    if let Some(parallelism) = described
        .parallelism_configuration_description
        .as_ref()
        .and_then(|p| p.parallelism)
    {
        set("parallelism.default", &parallelism);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_beside_the_type_default_does_not_count() {
        let mut given = FlinkApplicationConfiguration::default();
        let parallelism = |configuration_type| wire::kinesisanalyticsv2::ParallelismConfiguration {
            auto_scaling_enabled: Some(false),
            configuration_type,
            parallelism: Some(4),
            parallelism_per_kpu: None,
        };
        given.parallelism_configuration = Some(parallelism(ConfigurationType::Default));
        let told = describe(given.clone()).parallelism_configuration_description.unwrap();
        assert_eq!((told.parallelism, told.auto_scaling_enabled), (Some(1), Some(true)));
        given.parallelism_configuration = Some(parallelism(ConfigurationType::Custom));
        let described = describe(given);
        let told = described.parallelism_configuration_description.clone().unwrap();
        assert_eq!(
            (told.parallelism, told.parallelism_per_kpu, told.current_parallelism),
            (Some(4), Some(1), Some(4))
        );
        assert_eq!(
            settings(&described),
            "SET 'execution.checkpointing.interval' = '60000 ms';\nSET 'execution.checkpointing.min-pause' = '5000 ms';\nSET 'parallelism.default' = '4';\n"
        );
    }
}
