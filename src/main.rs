//! The program `elver`: daemon and client in one.

fn main() -> std::process::ExitCode {
    elver::cli::main()
}
