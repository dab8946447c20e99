//! Looks for panics and broken bounds over arbitrary bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| landfall_stac_fuzz::bytes(data));
