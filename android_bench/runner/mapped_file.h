// A file, readable in memory. Pages are read as they are touched and belong to the page cache, so
// that a large evaluation set costs no memory of its own.

#ifndef TFQ_ANDROID_BENCH_RUNNER_MAPPED_FILE_H_
#define TFQ_ANDROID_BENCH_RUNNER_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace tfq {

class MappedFile {
 public:
  // Throws Error for a file that cannot be read or is empty.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_MAPPED_FILE_H_
