// The classic TensorFlow Lite C API (libtensorflowlite_c.so; on Android also the library inside the
// AAR). Only functions and types that have been stable since 2.5 are used. It names no signatures,
// so tensors carry the names they have in the graph, and it has no profiler.

#ifndef TFQ_ANDROID_BENCH_RUNNER_RUNTIME_TFLITE_H_
#define TFQ_ANDROID_BENCH_RUNNER_RUNTIME_TFLITE_H_

#include <memory>

#include "library.h"
#include "runtime.h"

namespace tfq {

// Throws Error where the library lacks a function.
std::unique_ptr<Runtime> MakeTflite(std::unique_ptr<Library> library);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_RUNTIME_TFLITE_H_
