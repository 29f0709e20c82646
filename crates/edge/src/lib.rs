//! Listeners, dispatch and error rendering: the only room that knows HTTP.
