//! Puts the folder of the `libpython` that pyo3 was built for into the run path of the program and its tests, so that
//! nobody has to set `LD_LIBRARY_PATH`. `PYO3_PYTHON`, or else the `python3` on the PATH, decides which one that is.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    pyo3_build_config::use_pyo3_cfgs();
    pyo3_build_config::add_libpython_rpath_link_args();
    if let Some(executable) = pyo3_build_config::get().executable() {
        println!("cargo:rustc-env=MILLGATE_PYTHON_EXECUTABLE={executable}");
    }
}
