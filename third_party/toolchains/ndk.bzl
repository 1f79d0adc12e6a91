"""Where the Android NDK lies: the environment variable ANDROID_NDK_HOME, as a Starlark constant.

The NDK is not fetched. Without the variable the constant is empty, and building for Android ends with the
message of missing_ndk.sh.
"""

def _impl(repository):
    home = repository.os.environ.get("ANDROID_NDK_HOME", "")
    if home and not repository.path(home + "/source.properties").exists:
        fail("ANDROID_NDK_HOME is %s, which has no source.properties: give the folder of an NDK (r23 or later)" % home)
    repository.file("BUILD", "")
    repository.file("defs.bzl", "NDK_HOME = %r\n" % home)

android_ndk = repository_rule(implementation = _impl, environ = ["ANDROID_NDK_HOME"], local = True)
