# The toolchain file of the NDK that ANDROID_NDK_HOME names, with the runner's settings.
set(ndk "$ENV{ANDROID_NDK_HOME}")
if(NOT EXISTS "${ndk}/build/cmake/android.toolchain.cmake")
  message(FATAL_ERROR
    "The Android NDK is needed to build for Android: install it and set ANDROID_NDK_HOME to its folder "
    "(got '${ndk}', which has no build/cmake/android.toolchain.cmake).")
endif()
if(NOT ANDROID_ABI)
  set(ANDROID_ABI arm64-v8a)
endif()
set(ANDROID_PLATFORM android-26)
set(ANDROID_STL c++_static)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES ANDROID_ABI)
include("${ndk}/build/cmake/android.toolchain.cmake")
