//! The `doorward` program: everything is in [`doorward::cli`].

fn main() -> std::process::ExitCode {
    doorward::cli::main()
}
