//! The shapes and operation tables of every service, generated from the service models.
