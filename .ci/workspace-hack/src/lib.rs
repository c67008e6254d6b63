//! Nothing. The manifest says what for.
