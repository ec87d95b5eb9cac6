//! ctl-supervisor: see ARCHITECTURE.md.
