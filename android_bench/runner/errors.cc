#include "errors.h"

#include <cerrno>
#include <cstring>

namespace tfq {

Error SystemError(const std::string& action, const std::string& path) {
  return Error("cannot " + action + " " + path + ": " + std::strerror(errno));
}

}  // namespace tfq
