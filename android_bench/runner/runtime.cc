#include "runtime.h"

#include "errors.h"
#include "library.h"
#include "runtime_litert.h"
#include "runtime_tflite.h"

namespace tfq {

std::unique_ptr<Runtime> OpenRuntime(const std::string& path, RuntimeKind kind) {
  auto library = std::make_unique<Library>(path);
  if (kind == RuntimeKind::kAuto) {
    const bool litert = library->Has("LiteRtCreateEnvironment");
    if (!litert && !library->Has("TfLiteInterpreterCreate")) {
      throw Error("the library " + path +
                  " holds neither LiteRT (LiteRtCreateEnvironment) nor the classic C API "
                  "(TfLiteInterpreterCreate); give libLiteRt.so or libtensorflowlite_c.so");
    }
    kind = litert ? RuntimeKind::kLiteRt : RuntimeKind::kTflite;
  }
  if (kind == RuntimeKind::kLiteRt) return MakeLiteRt(std::move(library));
  return MakeTflite(std::move(library));
}

}  // namespace tfq
