//! See the module of the same name.
#![cfg_attr(fuzzing, no_main)]
frameport_fuzz::program!(wire);
