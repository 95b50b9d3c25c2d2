//! The `doorward` program: everything is in [`doorward::cli`].

/// Faster than the system's for the many small things of a request, and gives back what a storm of logins took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    doorward::cli::main()
}
