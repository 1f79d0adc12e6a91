"""Stand-in for rules_java: the names that Bazel's own BUILD files load, bound to the native rules."""

java_import = native.java_import
java_runtime = native.java_runtime
java_toolchain = native.java_toolchain
