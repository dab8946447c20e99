//! Holds the engine against the plain schema engine on documents that a program of mutations makes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| landfall_stac_fuzz::differential(data));
