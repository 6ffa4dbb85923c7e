"""The subcommands of `ppl-fast`, one file each, with `main(arguments) -> int`."""
