#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "errors.h"

namespace tfq {

MappedFile::MappedFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw SystemError("open", path);
  struct stat status;
  if (fstat(file, &status) != 0) {
    const Error error = SystemError("read", path);
    close(file);
    throw error;
  }
  const bool regular = S_ISREG(status.st_mode);
  if (!regular || status.st_size <= 0 ||
      static_cast<uint64_t>(status.st_size) > std::numeric_limits<size_t>::max() / 2) {
    close(file);
    throw Error(
        path +
        (regular ? " has " + std::to_string(status.st_size) + " bytes" : " is no regular file") +
        ", expected a file with content that fits into memory");
  }
  size_ = static_cast<size_t>(status.st_size);
  void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
  const Error error = SystemError("map", path);
  close(file);
  if (mapped == MAP_FAILED) throw error;
  data_ = static_cast<const uint8_t*>(mapped);
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_); }

}  // namespace tfq
