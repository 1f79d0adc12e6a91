"""A C++ toolchain of a GCC-like driver that knows its own sysroot: what Bazel needs to hear about it."""

load("@bazel_tools//tools/cpp:cc_toolchain_config_lib.bzl", "feature", "flag_group", "flag_set", "tool_path")

_COMPILE = ["c-compile", "c++-compile", "assemble", "preprocess-assemble"]
_LINK = ["c++-link-executable", "c++-link-dynamic-library", "c++-link-nodeps-dynamic-library"]

def _flags(name, actions, flags):
    groups = [flag_group(flags = flags)] if flags else []
    return feature(
        name = name,
        enabled = True,
        flag_sets = [flag_set(actions = actions, flag_groups = groups)] if groups else [],
    )

def _impl(ctx):
    tools = {
        "ar": ctx.attr.archiver,
        "cpp": ctx.attr.compiler,
        "gcc": ctx.attr.compiler,
        "gcov": "/bin/false",
        "ld": ctx.attr.compiler,
        "nm": "/bin/false",
        "objdump": "/bin/false",
        "strip": ctx.attr.stripper,
    }
    return cc_common.create_cc_toolchain_config_info(
        ctx = ctx,
        toolchain_identifier = ctx.label.name,
        host_system_name = "local",
        target_system_name = ctx.label.name,
        target_cpu = ctx.label.name,
        target_libc = "unknown",
        compiler = "compiler",
        abi_version = "unknown",
        abi_libc_version = "unknown",
        tool_paths = [tool_path(name = name, path = path) for name, path in tools.items()],
        cxx_builtin_include_directories = ctx.attr.system_includes,
        features = [
            _flags("target_compile_flags", _COMPILE, ctx.attr.target_flags + ["-O2", "-fPIC"]),
            _flags("target_link_flags", _LINK, ctx.attr.target_flags + ctx.attr.link_flags),
        ],
    )

cc_toolchain_config = rule(
    implementation = _impl,
    attrs = {
        "archiver": attr.string(mandatory = True),
        "compiler": attr.string(mandatory = True, doc = "driver for compiling and linking C++"),
        "link_flags": attr.string_list(),
        "stripper": attr.string(mandatory = True),
        "system_includes": attr.string_list(doc = "folders of headers that need not be declared"),
        "target_flags": attr.string_list(doc = "for compiling and linking"),
    },
    provides = [CcToolchainConfigInfo],
)

def cross_toolchain(name, constraints, compiler, archiver, stripper, files = [], **config):
    """Platform `name`, and the toolchain `name`_toolchain that builds for it on x86-64 Linux.

    Tools are absolute paths, or names of `files`.
    """
    native.platform(name = name, constraint_values = constraints)
    native.filegroup(name = name + "_files", srcs = files)
    cc_toolchain_config(
        name = name + "_config",
        archiver = archiver,
        compiler = compiler,
        stripper = stripper,
        **config
    )
    native.cc_toolchain(
        name = name + "_cc",
        all_files = name + "_files",
        compiler_files = name + "_files",
        dwp_files = name + "_files",
        linker_files = name + "_files",
        objcopy_files = name + "_files",
        strip_files = name + "_files",
        supports_param_files = 0,
        toolchain_config = name + "_config",
    )
    native.toolchain(
        name = name + "_toolchain",
        exec_compatible_with = ["@platforms//os:linux", "@platforms//cpu:x86_64"],
        target_compatible_with = constraints,
        toolchain = name + "_cc",
        toolchain_type = "@bazel_tools//tools/cpp:toolchain_type",
    )
