#!/bin/sh
# Stands in for the compiler of the Android NDK where there is none.
echo "The Android NDK is needed to build for Android: install it and set ANDROID_NDK_HOME to its folder" >&2
echo "(the one with source.properties in it; r23 or later), then run Bazel again." >&2
exit 1
