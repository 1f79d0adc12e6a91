// LiteRT (libLiteRt.so) by its C API. The library comes without headers, so the few functions that
// are used are declared in the .cc file. Their ABI is that of 2.2 and 2.3: until 2.1.5
// LiteRtCreateModelFromFile took no environment, under the same name, and nothing in the library
// tells 2.1.5 from 2.1.6; LiteRtGetCompiledModelEnvironment exists since 2.2 and serves as the
// probe.

#ifndef TFQ_ANDROID_BENCH_RUNNER_RUNTIME_LITERT_H_
#define TFQ_ANDROID_BENCH_RUNNER_RUNTIME_LITERT_H_

#include <memory>

#include "library.h"
#include "runtime.h"

namespace tfq {

// Throws Error for a version whose ABI is not known.
std::unique_ptr<Runtime> MakeLiteRt(std::unique_ptr<Library> library);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_RUNTIME_LITERT_H_
