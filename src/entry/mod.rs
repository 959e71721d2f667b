//! Where the server enters: loading and unloading, its events, parameters, `INFO`.

mod events;
mod info;
mod load;
mod settings;
