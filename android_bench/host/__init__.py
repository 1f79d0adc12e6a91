"""The host side of the benchmark on devices; installed as the package `tfq_bench`."""
