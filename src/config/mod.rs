//! TOML files become [`Settings`](crate::model::Settings), or diagnostics.
