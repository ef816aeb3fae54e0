//! (see the module's own page)
