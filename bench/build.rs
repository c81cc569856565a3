//! As `replica-runtime/build.rs`: where the `libpython` is that is measured with.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    pyo3_build_config::add_libpython_rpath_link_args();
}
